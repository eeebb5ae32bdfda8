//! Crate `eventsource-client`: tells what it is told of the stream at its first argument, a line of
//! JSON each.

use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures::TryStreamExt;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).expect("an address");
    let options = ReconnectOptions::reconnect(true)
        .retry_initial(true)
        .delay(Duration::from_millis(200))
        .delay_max(Duration::from_secs(2))
        .build();
    let client = ClientBuilder::for_url(&url).expect("an address").reconnect(options).build_http();
    let mut stream = client.stream();
    loop {
        match stream.try_next().await {
            Ok(Some(SSE::Connected(_))) => tell(&json!({ "open": true })),
            Ok(Some(SSE::Event(event))) => {
                let id = event.id.unwrap_or_default();
                tell(&json!({ "name": event.event_type, "id": id, "data": event.data }));
            }
            Ok(Some(SSE::Comment(_))) => {}
            Ok(None) => return tell(&json!({ "error": "end", "closed": true })),
            Err(error) => tell(&json!({ "error": error.to_string(), "closed": false })),
        }
    }
}

fn tell(what: &Value) {
    println!("{what}");
}
