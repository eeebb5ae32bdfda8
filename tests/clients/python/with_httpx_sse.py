"""PyPI httpx-sse: tells what it is told of the stream at argv[1], a line of JSON each. It does not reconnect by itself:
the loop is the one of its documentation, which keeps the last id and the last `retry`. A `retry:` alone is an event without
data to it."""
import json
import sys
import time

import httpx
from httpx_sse import SSEError, connect_sse


def tell(**what):
    print(json.dumps(what), flush=True)


last_event_id, pause_s = "", 0.0
with httpx.Client(timeout=httpx.Timeout(30.0, read=120.0)) as client:
    while True:
        time.sleep(pause_s)
        fields = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            with connect_sse(client, "GET", sys.argv[1], headers=fields) as source:
                source.response.raise_for_status()
                tell(open=True)
                for event in source.iter_sse():
                    last_event_id = event.id
                    if event.retry is not None:
                        pause_s = event.retry / 1000
                    if event.data:
                        tell(name=event.event, id=event.id, data=event.data)
            tell(error="end", closed=False)
        except (httpx.TransportError, SSEError) as error:
            tell(error=repr(error), closed=False)
