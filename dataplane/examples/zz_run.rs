//! Scratch.
fn main() {
    let path = std::env::args().nth(1).expect("config");
    let config = pharos_dataplane::config::Config::load(path.as_ref(), &Default::default())
        .unwrap_or_else(|e| panic!("{e}"));
    let running = pharos_dataplane::start(config).unwrap_or_else(|e| panic!("{e:?}"));
    eprintln!("{:?} {:?} {}", running.engine(), running.listen(), running.admin());
    running.join().unwrap_or_else(|e| panic!("{e}"));
}
