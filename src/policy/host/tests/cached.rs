//! Compiled modules on disk: found again, and compiled again when anything about them is wrong.

use std::path::{Path, PathBuf};

use super::*;
use base::model::limits;

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("crossfade-policy-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    fn only(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn host_at(folder: &Path) -> Host {
    Host::new(HostOptions { cache_dir: Some(folder.to_owned()), ..options() }).expect("a host")
}

fn forwards() -> String {
    request_guest("", "(i64.const 0x10)")
}

fn mirrors() -> String {
    request_guest("", "(i64.const 0x11)")
}

fn answers(module: &Module) -> RequestAction {
    request(&mut module.instantiate("{}", 1).expect("an instance")).expect("an answer").action
}

#[test]
fn a_module_is_compiled_once() {
    let folder = Folder::new("once");
    let first = load(&host_at(&folder.0), "first", &forwards());
    assert!(!first.was_cached());
    let name = folder.only().file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with(&format!("{}-", first.digest())) && name.ends_with(".cwasm"), "{name}");
    let host = host_at(&folder.0);
    let second = load(&host, "second", &forwards());
    assert!(second.was_cached());
    assert_eq!((second.digest(), answers(&second)), (first.digest(), RequestAction::Forward));
    let other = load(&host, "other", &mirrors());
    assert_eq!((other.was_cached(), answers(&other)), (false, RequestAction::Mirror));
    assert_eq!(folder.files().len(), 2);
}

#[test]
fn a_refused_module_is_not_kept() {
    let folder = Folder::new("refused");
    let host = host_at(&folder.0);
    assert!(host.load("none", b"(module)").is_err());
    assert!(folder.files().is_empty());
}

#[test]
fn a_file_that_is_torn_changed_or_empty_is_replaced() {
    let folder = Folder::new("torn");
    let host = host_at(&folder.0);
    load(&host, "guest", &forwards());
    let file = folder.only();
    let whole = std::fs::read(&file).expect("the file");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [&whole[..], b"x"].concat();
    let shorter = whole[..whole.len() - 1].to_vec();
    for wrong in [Vec::new(), whole[..20].to_vec(), shorter, longer, flipped(0), flipped(40), flipped(whole.len() - 1)]
    {
        std::fs::write(&file, &wrong).expect("written");
        let module = load(&host, "guest", &forwards());
        assert_eq!((module.was_cached(), answers(&module)), (false, RequestAction::Forward));
        assert_eq!(std::fs::read(&file).expect("the file").len(), whole.len());
        assert!(load(&host, "guest", &forwards()).was_cached());
    }
}

#[test]
fn a_file_under_another_ones_name_is_not_taken() {
    let folder = Folder::new("foreign");
    let host = host_at(&folder.0);
    load(&host, "guest", &mirrors());
    let mirrors_file = folder.only();
    let forwards_digest = load(&host, "guest", &forwards()).digest().to_owned();
    let forwards_file = folder.files().into_iter().find(|file| file.to_string_lossy().contains(&forwards_digest));
    let forwards_file = forwards_file.expect("the file");
    std::fs::copy(&mirrors_file, &forwards_file).expect("copied");
    let module = load(&host, "guest", &forwards());
    assert_eq!((module.was_cached(), answers(&module)), (false, RequestAction::Forward));
}

#[test]
fn without_a_usable_folder_modules_are_compiled() {
    let folder = Folder::new("blocked");
    std::fs::write(&folder.0, b"not a folder").expect("written");
    let host = host_at(&folder.0);
    for _ in 0..2 {
        let module = load(&host, "guest", &forwards());
        assert_eq!((module.was_cached(), answers(&module)), (false, RequestAction::Forward));
    }
    std::fs::remove_file(&folder.0).expect("removed");
    // The name belongs to a folder.
    load(&host, "guest", &forwards());
    let file = folder.only();
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("made");
    assert_eq!(answers(&load(&host, "guest", &forwards())), RequestAction::Forward);
}

#[test]
fn the_number_of_files_is_bounded() {
    let folder = Folder::new("many");
    let host = host_at(&folder.0);
    std::fs::create_dir_all(&folder.0).expect("made");
    for number in 0..limits::POLICY_CACHE_FILES_MAX + 10 {
        let extension = if number % 2 == 0 { "cwasm" } else { "tmp" };
        let old = std::fs::File::create(folder.0.join(format!("old-{number}.{extension}"))).expect("made");
        old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64)).expect("set");
    }
    std::fs::write(folder.0.join("notes.txt"), b"not ours").expect("written");
    load(&host, "guest", &forwards());
    let files = folder.files();
    assert_eq!(files.len(), limits::POLICY_CACHE_FILES_MAX + 1);
    let there = |name: &str| files.iter().any(|file| file.ends_with(name));
    assert!(there("notes.txt") && there("old-73.tmp") && !there("old-10.cwasm") && there("old-11.tmp"));
    assert!(load(&host, "guest", &forwards()).was_cached());
}
