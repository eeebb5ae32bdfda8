//! Varnish as a cache: objects in memory, threads ready beforehand, shared-memory log without
//! per-request records.

use crate::{
    failure::Failure,
    peer::{Ground, Plan},
    probe,
};

/// Varnish with malloc storage.
///
/// # Errors
/// No free port.
pub(crate) fn plan(ground: &Ground) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for varnish").because(error))?;
    let name = "varnish".to_owned();
    let folder = ground.folder.path.join(&name);
    let vcl = format!(
        "vcl 4.1;
backend origin {{ .host = \"{host}\"; .port = \"{port}\"; }}
",
        host = ground.origin.ip(),
        port = ground.origin.port(),
    );
    let arguments = [
        "-F",
        "-n",
        &folder.join("work").display().to_string(),
        "-a",
        &listen.to_string(),
        "-f",
        &folder.join("bench.vcl").display().to_string(),
        "-s",
        "malloc,256m",
        "-p",
        "thread_pools=1",
        "-p",
        "thread_pool_min=200",
        "-p",
        "timeout_idle=3600",
        "-p",
        &format!("vsl_mask={}", PER_REQUEST_TAGS.map(|tag| format!("-{tag}")).join(",")),
    ];
    Ok(Plan {
        name,
        program: "varnishd".into(),
        arguments: arguments.map(str::to_owned).to_vec(),
        files: vec![("bench.vcl", vcl)],
        listen,
        version_flag: "-V",
        package: "varnish",
        choice: "malloc storage, one pool of 200 threads, no log records".into(),
    })
}

/// Log records written for requests and connections; version 7.1 knows no word for all of them.
const PER_REQUEST_TAGS: [&str; 50] = [
    "Begin",
    "End",
    "ReqStart",
    "ReqMethod",
    "ReqURL",
    "ReqProtocol",
    "ReqStatus",
    "ReqReason",
    "ReqHeader",
    "ReqUnset",
    "ReqAcct",
    "RespProtocol",
    "RespMethod",
    "RespURL",
    "RespStatus",
    "RespReason",
    "RespHeader",
    "RespUnset",
    "BereqMethod",
    "BereqURL",
    "BereqProtocol",
    "BereqHeader",
    "BereqUnset",
    "BereqAcct",
    "BerespProtocol",
    "BerespStatus",
    "BerespReason",
    "BerespHeader",
    "BerespUnset",
    "Timestamp",
    "Hit",
    "HitMiss",
    "HitPass",
    "VCL_call",
    "VCL_return",
    "VCL_use",
    "SessOpen",
    "SessClose",
    "Link",
    "TTL",
    "Length",
    "Storage",
    "Fetch_Body",
    "BackendOpen",
    "BackendClose",
    "Filters",
    "Error",
    "FetchError",
    "Hash",
    "ExpKill",
];
