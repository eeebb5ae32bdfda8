//! The links to control and to edges that relay, as the configuration names them: addresses, and
//! keys from files.
//!
//! Leaves to others: following it (`shard::session`).

use std::{fs, io, path::Path, sync::Arc};

use crate::{
    StartError,
    config::{self, ConfigError},
    limits,
    shard::{ControlLink, secret::SecretHash},
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

/// Edges that are to be followed before control, and what to say there.
pub(crate) fn parents(control: &config::Control) -> Result<Vec<ControlLink>, StartError> {
    let Some(file) = &control.via_key_file else { return Ok(Vec::new()) };
    let authorization: Arc<str> = format!("Bearer {}", read_key(file)?).into();
    let links = control.via.iter().map(|url| {
        let (host, port) = config::authority(url).map_err(|expected| {
            let (key, expected) = ("control.via".to_owned(), expected.to_owned());
            StartError::Config(ConfigError::Refused { key, expected })
        })?;
        let authorization = Arc::clone(&authorization);
        Ok(ControlLink { host: host.into(), port, authorization })
    });
    links.collect()
}

/// The key that other edges must have, as its hash.
pub(crate) fn relay_key(relay: &config::Relay) -> Result<SecretHash, StartError> {
    read_key(&relay.key_file).map(|key| SecretHash::of(key.as_bytes()))
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
