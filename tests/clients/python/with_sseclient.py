"""PyPI sseclient-py: tells what it is told of the stream at argv[1], a line of JSON each. It reads one answer; asking
again, with the last id, is its caller's. It does not hand on what has no data: a `retry:` alone is not seen."""
import json
import sys
import time

import requests
import sseclient


def tell(**what):
    print(json.dumps(what), flush=True)


last_event_id = ""
while True:
    fields = {"Accept": "text/event-stream"}
    if last_event_id:
        fields["Last-Event-ID"] = last_event_id
    try:
        response = requests.get(sys.argv[1], stream=True, headers=fields, timeout=(30, 120))
        response.raise_for_status()
        tell(open=True)
        for event in sseclient.SSEClient(response).events():
            last_event_id = event.id or last_event_id
            tell(name=event.event, id=event.id or "", data=event.data)
        tell(error="end", closed=False)
    except requests.RequestException as error:
        tell(error=repr(error), closed=False)
    time.sleep(0.2)
