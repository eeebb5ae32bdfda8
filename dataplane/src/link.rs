//! The link to control as the configuration names it: its address, and its key from a file.
//!
//! Leaves to others: following it (`shard::session`).

use std::{fs, io, path::Path, sync::Arc};

use crate::{
    StartError,
    config::{self, ConfigError},
    limits,
    shard::ControlLink,
};

/// Where control is and what to say there.
pub(crate) fn control_link(control: &config::Control) -> Result<ControlLink, StartError> {
    let authorization = read_authorization(control)?;
    let (host, port) = config::authority(&control.url).map_err(|expected| {
        let (key, expected) = ("control.url".to_owned(), expected.to_owned());
        StartError::Config(ConfigError::Refused { key, expected })
    })?;
    Ok(ControlLink { host: host.into(), port, authorization })
}

/// `Bearer …`, from the key's file as it is now.
pub(crate) fn read_authorization(control: &config::Control) -> Result<Arc<str>, StartError> {
    read_key(&control.key_file).map(|key| format!("Bearer {key}").into())
}

fn read_key(path: &Path) -> Result<String, StartError> {
    let failed = |source| StartError::Key { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > limits::KEY_FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(StartError::KeyUnusable { path: path.to_owned() });
    }
    Ok(key.to_owned())
}
