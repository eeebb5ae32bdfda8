//! Rules of a site, `PURGE` and `pharos explain` on real processes, as docs/rules.md has them.

use std::{fs, io::Write as _};

use pharos_tests::process::{
    client::Client,
    node::{Node, run},
    origin::Origin,
    wait::until,
};
use serde_json::Value;

const HOST: &str = "shop.example";

struct Shop {
    node: Node,
    origin: Origin,
    folder: tempfile::TempDir,
}

impl Shop {
    /// A node whose site has the rules of the document.
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = Origin::start(folder.path());
        let node = Node::up(&["--shards", "2"]);
        let url = format!("http://{}", origin.address);
        let create = ["site", "create", "--name", "shop", "--host", HOST, "--origin", &url];
        node.cli(&[&create[..], &["--route", "/cart/=pass"]].concat());
        let file = folder.path().join("rules.json");
        fs::write(&file, example()).expect("written");
        node.cli(&["site", "rules", "shop", "--set", &file.display().to_string()]);
        let shop = Self { node, origin, folder };
        // Shards learn of the site one after the other, and each connection is one shard's.
        shop.wait_for_rule("/static/ready", "assets");
        shop
    }

    /// Waits until many connections in a row meet the rule.
    fn wait_for_rule(&self, path: &str, rule: &str) {
        until("every shard knows the rules", 60, || {
            (0..16)
                .all(|_| {
                    let reply = self.get(path, &[]);
                    let told = self.explain(reply.field("x-request-id").unwrap_or_default());
                    told.is_some_and(|told| told["rule"] == rule)
                })
                .then_some(())
        });
    }

    fn get(&self, target: &str, fields: &[(&str, &str)]) -> pharos_tests::client::http::Reply {
        self.ask("GET", target, fields)
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> pharos_tests::client::http::Reply {
        let mut client = Client::connect(self.node.edge).expect("the edge listens");
        client.ask_with(method, HOST, target, fields, b"");
        client.answer().expect("an answer")
    }

    fn explain(&self, id: &str) -> Option<Value> {
        let admin = format!("http://{}", self.node.admin);
        let output = run(&["explain", id, "--admin", &admin, "-o", "json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// How often the origin was asked for this target.
    fn asked(&self, target: &str) -> u64 {
        self.origin.counts().get(target).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// The rules in docs/rules.md.
fn example() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md");
    let text = fs::read_to_string(path).expect("docs/rules.md");
    let block = text.split("```json rules\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("an example of rules").to_owned()
}

fn label(reply: &pharos_tests::client::http::Reply) -> &str {
    reply.field("x-cache-status").unwrap_or_default()
}
