//! Control, edges and visitors as hosts of their own: a network namespace each, joined by two
//! networks whose cables can be pulled.
//!
//! ```text
//!   visitors (this process)          edge 0, 1, 2              control
//!   10.9.0.1 ═ bridge "outer" ═══ 10.9.1.<1+n>
//!   10.7.0.250 ──────────────────── 10.7.0.<11+n> ═ bridge "inner" ═ 10.7.0.1
//!                                   10.8.0.1 on each: the service
//! ```
//! The service's address is reached by the route of the table that belongs to a connection's source
//! address: 10.20+n.0.* leads to edge n; the main table's route is the moving one. A pulled cable
//! is silent: nobody is told that what he sends does not arrive. Leaves to others: who is ready
//! (`address`), the faults (the tests).

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde_json::Value;

use crate::{
    client::http::Reply,
    process::{
        client::Client,
        kept,
        netns::{Namespace, order},
        node::{Process, get, program, run},
        wait::until,
    },
};

/// The service's address.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVICE_IP), 8080);
/// The name of the site.
pub const HOST: &str = "live.example";

/// All hosts. Fields in the order in which they are to end.
#[derive(Debug)]
pub struct Hosts {
    /// The edges.
    pub edges: Vec<EdgeHost>,
    control_process: Option<Process>,
    control: Namespace,
    /// All files.
    pub folder: tempfile::TempDir,
}

/// An edge's host.
#[derive(Debug)]
pub struct EdgeHost {
    /// Its process, while it has one.
    pub process: Option<Process>,
    namespace: Namespace,
    name: String,
    /// Its own address for visitors.
    pub address: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
}

impl Hosts {
    /// Starts control with a page of slug `demo`, and so many edges that are configured but not
    /// started. `settings` are the sections that follow in each `edge.toml`.
    pub fn new(edges: usize, shards: u16, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let control = Namespace::new();
        // Without an address of its own a bridge takes that of a port, and another with each cable.
        control.order(&[
            "ip link add name inner address 02:00:00:00:07:01 type bridge",
            "ip addr add 10.7.0.1/24 dev inner",
        ]);
        control.order(&["ip link set dev inner up"]);
        let to_control = control.id();
        order(&[
            format!("ip link add name outer address {OUTER_MAC} type bridge"),
            "ip addr add 10.9.0.1/16 dev outer".to_owned(),
            "ip link set dev outer up".to_owned(),
            format!("ip link add name oper type veth peer name oper netns {to_control}"),
            "ip addr add 10.7.0.250/24 dev oper".to_owned(),
            "ip link set dev oper up".to_owned(),
        ]);
        control.order(&["ip link set dev oper master inner", "ip link set dev oper up"]);
        let data = folder.path().join("data").display().to_string();
        let listen = format!("listen = \"{API}\"\ndata = \"{data}\"\nallow_plaintext = true\n");
        fs::write(folder.path().join("control.toml"), listen).expect("a configuration");
        let mut hosts = Self { edges: Vec::new(), control_process: None, control, folder };
        hosts.start_control();
        hosts.cli(&["page", "create", "--slug", "demo", "--name", "Demo"]);
        hosts.cli(&["component", "create", "--page", "demo", "--slug", "api", "--name", "API"]);
        for at in 0..edges {
            hosts.add_edge(at, shards, settings);
        }
        hosts
    }

    fn add_edge(&mut self, at: usize, shards: u16, settings: &str) {
        let (namespace, number) = (Namespace::new(), at + 1);
        let mac = format!("02:00:00:01:09:{number:02x}");
        let (to, to_control) = (namespace.id(), self.control.id());
        order(&[
            format!("ip link add name e{at} type veth peer name outer address {mac} netns {to}"),
            format!("ip link set dev e{at} master outer"),
            format!("ip link set dev e{at} up"),
            format!("ip neigh add 10.9.1.{number} lladdr {mac} dev outer nud permanent"),
            format!("ip route add local 10.{}.0.0/16 dev lo", SOURCES + at),
            format!("ip rule add from 10.{}.0.0/16 lookup {}", SOURCES + at, TABLES + at),
            format!("ip route add {SERVICE_IP} via 10.9.1.{number} table {}", TABLES + at),
        ]);
        namespace.order(&[
            "ip link set dev outer up".to_owned(),
            format!("ip addr add 10.9.1.{number}/16 dev outer"),
            "ip route add default via 10.9.0.1".to_owned(),
            format!("ip neigh add 10.9.0.1 lladdr {OUTER_MAC} dev outer nud permanent"),
            format!("ip addr add {SERVICE_IP}/32 dev lo"),
            format!("ip link add name inner type veth peer name e{at} netns {to_control}"),
            format!("ip addr add 10.7.0.{}/24 dev inner", 10 + number),
            "ip link set dev inner up".to_owned(),
        ]);
        self.control.order(&[
            format!("ip link set dev e{at} master inner"),
            format!("ip link set dev e{at} up"),
        ]);
        let name = format!("edge-{at}");
        let address = SocketAddr::from(([10, 9, 1, number as u8], 8080));
        let admin = SocketAddr::from(([10, 9, 1, number as u8], 7401));
        let into = self.folder.path().join(&name);
        self.cli(&["edge", "add", &name, "--into", &into.display().to_string()]);
        let file = into.join("edge.toml");
        let text = fs::read_to_string(&file).expect("what `edge add` wrote");
        let listen = format!("{SERVICE}\", \"{address}");
        let text = text
            .replace("127.0.0.1:8080", &listen)
            .replace("127.0.0.1:7401", &admin.to_string())
            .replace("id = ", &format!("url = \"http://{address}\"\nshards = {shards}\nid = "));
        fs::write(&file, format!("{text}\n{settings}")).expect("the file is ours");
        self.edges.push(EdgeHost { process: None, namespace, name, address, admin });
    }

    // ---- processes ----

    /// Starts an edge, without waiting for it.
    pub fn start_edge(&mut self, at: usize) {
        let edge = &self.edges[at];
        let file = self.folder.path().join(&edge.name).join("edge.toml").display().to_string();
        let command = edge.namespace.command(program());
        let arguments = ["edge", "--config", &file];
        let process = Process::start_by(command, self.folder.path(), &edge.name, &arguments);
        self.edges[at].process = Some(process);
    }

    /// Kills an edge as a crash of its process would.
    pub fn kill_edge(&mut self, at: usize) {
        let mut process = self.edges[at].process.take().expect("it runs");
        process.kill();
    }

    /// Waits until an edge that was told to has ended; its exit code.
    pub fn wait_for_end(&mut self, at: usize) -> Option<i32> {
        self.edges[at].process.take().expect("it was told to end").wait()
    }

    /// Starts control on what it has kept, and waits until it answers.
    pub fn start_control(&mut self) {
        let file = self.folder.path().join("control.toml").display().to_string();
        let arguments = ["control", "--config", &file];
        let command = self.control.command(program());
        let process = Process::start_by(command, self.folder.path(), "control", &arguments);
        self.control_process = Some(process);
        until("control answers", 120, || {
            get(API, "/healthz").ok().filter(|reply| reply.status == 200)
        });
    }

    /// Kills control as a crash would.
    pub fn kill_control(&mut self) {
        if let Some(mut process) = self.control_process.take() {
            process.kill();
        }
    }

    /// Copies what control keeps; it does not run meanwhile.
    pub fn keep_control(&mut self) {
        fs::create_dir_all(self.kept()).expect("a folder");
        kept::copy(&self.folder.path().join("data"), &self.kept());
    }

    /// Puts control's data back to what was copied; it does not run meanwhile.
    pub fn put_control_back(&mut self) {
        kept::put_back(&self.kept(), &self.folder.path().join("data"));
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }

    // ---- cables ----

    /// Pulls or plugs the cable between an edge and control.
    pub fn cut_from_control(&self, at: usize, is_cut: bool) {
        let port = if is_cut { "nomaster" } else { "master inner" };
        self.control.order(&[format!("ip link set dev e{at} {port}")]);
    }

    /// Pulls or plugs the cable between an edge and all visitors.
    pub fn cut_from_visitors(&self, at: usize, is_cut: bool) {
        let port = if is_cut { "nomaster" } else { "master outer" };
        order(&[format!("ip link set dev e{at} {port}")]);
    }

    /// All connections that were led to this edge are led to another: what a router does that has
    /// forgotten its flows. Or they are led there no more.
    pub fn forget_flows(&self, at: usize, to: usize) {
        let (table, number) = (TABLES + at, to + 1);
        order(&[format!("ip route replace {SERVICE_IP} via 10.9.1.{number} table {table}")]);
    }

    // ---- what is said ----

    /// Runs an operator verb against control; its standard output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let (url, key) = (format!("http://{API}"), self.key_file().display().to_string());
        let output = run(&[arguments, &["--url", &url, "--key-file", &key]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "pharos {}: {said}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("data/admin.key")
    }

    /// `Authorization` at the API.
    pub fn bearer(&self) -> String {
        let key = fs::read_to_string(self.key_file()).expect("an admin key");
        format!("Bearer {}", key.trim())
    }

    /// Calls the API.
    pub fn api(&self, method: &str, path: &str, body: &str) -> Reply {
        let bearer = self.bearer();
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let mut client = Client::connect(API).expect("the API listens");
        client.ask_with(method, &API.to_string(), path, &fields, body.as_bytes());
        client.answer().expect("the API answers")
    }

    /// `POST` or `DELETE /v1/drain` at an edge.
    pub fn drain(&self, at: usize, method: &str) {
        let admin = self.edges[at].admin;
        let mut client = Client::connect(admin).expect("the admin listener");
        client.ask(method, &admin.to_string(), "/v1/drain", &[("Content-Length", "0")]);
        assert_eq!(client.answer().expect("an answer").status, 202);
    }

    /// What an edge says of itself.
    pub fn status(&self, at: usize) -> Option<Value> {
        let reply = get(self.edges[at].admin, "/v1/status").ok()?;
        serde_json::from_slice(&reply.body).ok()
    }

    /// The end of what each process said, for whoever reads why a test failed.
    pub fn log(&self) -> String {
        let names = ["control".to_owned()].into_iter();
        let names = names.chain(self.edges.iter().map(|edge| edge.name.clone()));
        let told = names.map(|name| {
            let path = self.folder.path().join(format!("{name}.err"));
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("-- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        });
        told.collect()
    }
}

/// Where control listens.
pub const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 7, 0, 1)), 7400);

/// The route that a browser takes.
pub fn route(to: usize) {
    order(&[format!("ip route replace {SERVICE_IP} via 10.9.1.{}", to + 1)]);
}

/// The source address by which a stream gets to an edge: several, because one has few ports.
pub fn source(edge: usize, number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, (SOURCES + edge) as u8, 0, 1 + (number % SOURCES_AN_EDGE) as u8)
}

/// The edge that has this address.
pub fn edge_of(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        std::net::IpAddr::V6(_) => None,
    }
}

/// Nobody asks for it: an ARP request that is lost among tens of thousands of connections would
/// stop all of them for the second until the next one.
const OUTER_MAC: &str = "02:00:00:00:09:01";
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// Second byte of the source addresses that lead to edge 0.
const SOURCES: usize = 20;
const SOURCES_AN_EDGE: u32 = 16;
/// The routing table that leads to edge 0.
const TABLES: usize = 100;
