//! What control keeps in its folder, copied and put back as a machine's snapshot is.
//!
//! Leaves to others: that control does not run meanwhile.

use std::{fs, path::Path};

/// What `pharos` keeps of control there; other roles may use the same folder.
fn is_controls(name: &str) -> bool {
    name == "epoch" || name.starts_with("control.db")
}

/// Copies it.
///
/// # Panics
/// When a folder or file cannot be had.
pub fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("a folder").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if is_controls(&name) {
            // Over what is there, as a machine's snapshot is: the same files, with what they held.
            fs::copy(file.path(), to.join(name)).expect("copied");
        }
    }
}

/// Puts it back: the files that there were, and no others.
///
/// # Panics
/// When a folder or file cannot be had.
pub fn put_back(kept: &Path, data: &Path) {
    for file in fs::read_dir(data).expect("a folder").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if is_controls(&name) && !kept.join(&name).exists() {
            fs::remove_file(file.path()).expect("removed");
        }
    }
    copy(kept, data);
}
