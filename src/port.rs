//! Whether an address is free to listen on, and if not, which process holds it.
//!
//! The holder is looked up in `/proc` (proc_pid_fd(5), proc_pid_net(5)): the table of listening
//! sockets gives the inode, the descriptors of all processes that we may look at give who has it
//! open.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::{clock, exit::Failure, limits};

/// Fails, naming the holder and the flag to change, unless `address` can be listened on now.
#[expect(
    clippy::disallowed_types,
    reason = "asks the kernel and closes at once; carries no traffic"
)]
pub(crate) fn check(address: SocketAddr, flag: &str) -> Result<(), Failure> {
    // Who is just ending (an `up` that was killed takes its children along) gets a moment to do so.
    let deadline = clock::now() + limits::PORT_FREE_AFTER;
    let error = loop {
        match std::net::TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if clock::now() >= deadline => break error,
            Err(_) => clock::wait(limits::LOOK_EVERY),
        }
    };
    let held = error.kind() == std::io::ErrorKind::AddrInUse;
    let by = match holder(address).filter(|_| held) {
        Some(holder) => format!(" (held by {holder})"),
        None => String::new(),
    };
    let port = address.port().saturating_add(1000);
    let other = SocketAddr::new(address.ip(), port);
    Err(Failure::because(format!("cannot listen on {address}{by}"), &error).remedy(format!(
        "stop what listens there, or choose another address, such as {flag} {other}"
    )))
}

/// `pid 4711 (nginx)`, as far as we may know.
pub(crate) fn holder(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|path| listening_inode(&fs::read_to_string(path).ok()?, address))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds =
            |link: &Path| fs::read_link(link).is_ok_and(|to| to.as_os_str() == wanted.as_str());
        if descriptors.flatten().any(|descriptor| holds(&descriptor.path())) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("pid {pid} ({})", command.trim()));
        }
    }
    None
}

/// The inode of the socket that listens where `address` would, from the text of `/proc/net/tcp` or
/// `tcp6`.
fn listening_inode(table: &str, address: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (host, port) = local.split_once(':')?;
        let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
        let everywhere = host.bytes().all(|b| b == b'0');
        let listens = *state == "0A";
        let same_host = everywhere || host == hex(address.ip()) || address.ip().is_unspecified();
        if listens && same_port && same_host { inode.parse().ok() } else { None }
    })
}

/// As the kernel prints it: 32-bit words in the machine's order.
fn hex(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let word = |chunk: &[u8]| u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    bytes.chunks_exact(4).map(|chunk| format!("{:08X}", word(chunk))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_types, reason = "holds a port for the test")]
    fn a_taken_port_names_who_holds_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(check(address, "--edge").is_err());
        let holder = holder(address).unwrap();
        assert!(holder.starts_with(&format!("pid {}", std::process::id())), "{holder}");
        drop(listener);
        assert!(check(address, "--edge").is_ok());
    }

    #[test]
    fn only_listening_sockets_of_that_address_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
            1: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
            2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n";
        let inode = |text: &str| listening_inode(table, text.parse().unwrap());
        assert_eq!(inode("127.0.0.1:8080"), None);
        assert_eq!(inode("127.0.0.1:8081"), Some(13));
        if cfg!(target_endian = "little") {
            assert_eq!(inode("127.0.0.2:8080"), Some(12));
        }
    }
}
