//! A real nginx, as an origin or in front, in a folder of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    node::get,
    wait::{free_address, until},
};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Where Debian puts it, or where the path says. `None` when this machine has none: the test then
/// says that it is skipped, by name.
pub fn program() -> Option<PathBuf> {
    let candidates = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"];
    candidates.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Nginx {
    /// Serves `tree` with `server` lines (such as `expires 1h;`) in its server block.
    pub fn serve(folder: &Path, tree: &Path, server: &str) -> Option<Self> {
        let address = free_address();
        let root = tree.display();
        let block = format!("server {{ listen {address}; root {root}; {server} }}");
        Self::run(folder, &block, address)
    }

    /// Runs with these lines in its http section, of which some server listens at `address`.
    pub fn run(folder: &Path, http: &str, address: SocketAddr) -> Option<Self> {
        let program = program()?;
        let prefix = folder.join("nginx");
        std::fs::create_dir_all(prefix.join("tmp")).expect("a folder for nginx");
        let user = if runs_as_root() { "user root;" } else { "" };
        let configuration = format!(
            "{user} daemon off; worker_processes 1; pid {p}/nginx.pid; error_log {p}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log {p}/access.log; client_body_temp_path {p}/tmp; proxy_temp_path {p}/tmp;\n\
             fastcgi_temp_path {p}/tmp; uwsgi_temp_path {p}/tmp; scgi_temp_path {p}/tmp;\n\
             default_type application/octet-stream;\n\
             {http} }}\n",
            p = prefix.display(),
        );
        let file = prefix.join("nginx.conf");
        std::fs::write(&file, configuration).expect("a configuration");
        let child = Command::new(program)
            .arg("-p")
            .arg(&prefix)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let nginx = Self { child, address };
        until("nginx answers", 20, || get(address, "/").ok());
        Some(nginx)
    }

    /// Lines of its access log that contain `needle`.
    pub fn requests(&self, folder: &Path, needle: &str) -> usize {
        let log = std::fs::read_to_string(folder.join("nginx/access.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(needle)).count()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // TERM lets the master take its workers along.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &id]).status();
        let _ = self.child.wait();
    }
}

/// Whether this process runs as root, as nginx must know to name its workers' user.
fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|data| {
        use std::os::unix::fs::MetadataExt;
        data.uid() == 0
    })
}
