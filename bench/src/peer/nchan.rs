//! nginx with nchan, for streams: as many workers as descriptors demand, all on the same core;
//! events published to `/pub/<topic>`, streams at `/sub/<topic>`.

use std::path::Path;

use crate::{
    failure::Failure,
    peer::{
        Ground, Plan,
        nginx::{arguments, http_part, main_part},
    },
    probe,
};

/// nginx with nchan.
///
/// # Errors
/// No free port, or the module is not installed.
pub(crate) fn plan(ground: &Ground) -> Result<Plan, Failure> {
    let listen = probe::free_address()
        .map_err(|error| Failure::error("find a port for nchan").because(error))?;
    let name = "nchan".to_owned();
    let folder = ground.folder.path.join(&name);
    let module = MODULES.iter().find(|path| Path::new(path).is_file()).ok_or_else(|| {
        Failure::error("the nchan module is not installed: apt-get install libnginx-mod-nchan")
    })?;
    // SO_REUSEPORT spreads by hash, within a few per cent: a tenth more room than an even share.
    let room = ground.descriptors.saturating_sub(1_000).max(1);
    let workers = (ground.sockets + ground.sockets / 10).div_ceil(room).max(1);
    let config = format!(
        "load_module {module};
{main}http {{
{http}  nchan_shared_memory_size 512m;
  server {{
    listen {listen} backlog=4096 reuseport;
    location ~ ^/pub/(\\w+)$ {{
      nchan_publisher;
      nchan_channel_id $1;
      nchan_message_buffer_length 100;
      nchan_message_timeout 5m;
    }}
    location ~ ^/sub/(\\w+)$ {{
      nchan_subscriber eventsource;
      nchan_channel_id $1;
      nchan_subscriber_first_message newest;
      nchan_subscriber_timeout 0;
    }}
    location = /ready {{ return 204; }}
  }}
}}
",
        main = main_part(&folder, ground, workers),
        http = http_part(),
    );
    Ok(Plan {
        name,
        program: "nginx".into(),
        arguments: arguments(&folder),
        files: vec![("nginx.conf", config)],
        listen,
        version_flag: "-v",
        package: "nginx libnginx-mod-nchan",
        choice: format!("{workers} workers on one core"),
    })
}

const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so"];
