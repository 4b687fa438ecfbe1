//! Compiled modules on disk, so that a restart does not compile them again. Optional:
//! when a file cannot be read, written or trusted, the module is compiled.
//!
//! Layout of `<sha256 of the module>-<hash of the compiler and its settings>.cwasm`: 32 bytes of checksum over name and rest, then
//! what the engine serialises. Files are written under another name and renamed.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module};
use xxhash_rust::xxh3::Xxh3;

use base::model::limits;

const CHECKSUM_BYTES: usize = 32;
const EXTENSION: &str = "cwasm";
const UNFINISHED: &str = "tmp";

/// Shared by the threads that load modules.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Changes with everything that makes compiled code unusable.
    engine_tag: String,
    warned: AtomicBool,
    written: AtomicU64,
}

impl Cache {
    pub fn new(folder: PathBuf, engine: &Engine) -> Self {
        let mut hasher = Xxh3::new();
        // The engine's hash has its version and every setting in it.
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_tag = format!("{:016x}", hasher.finish());
        Self { folder, engine_tag, warned: AtomicBool::new(false), written: AtomicU64::new(0) }
    }

    fn name(&self, digest: &str) -> String {
        format!("{digest}-{}.{EXTENSION}", self.engine_tag)
    }

    /// The compiled module, if its file exists and is complete.
    pub fn get(&self, engine: &Engine, digest: &str) -> Option<Module> {
        let name = self.name(digest);
        let content = match read(&self.folder.join(&name)) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.warn("read", &error);
                return None;
            }
        };
        let (sum, compiled) = content.split_at_checked(CHECKSUM_BYTES)?;
        if sum != checksum(&name, compiled).as_slice() {
            return None;
        }
        // SAFETY: these bytes must come from `Module::serialize`, unchanged. The folder is the operator's own data directory, which
        // only this program writes; the checksum over name and bytes says that this file was written whole and for this module,
        // and the engine refuses what another version or another configuration of it has made.
        unsafe { Module::deserialize(engine, compiled) }.ok()
    }

    /// Stores a compiled module. If that fails, the module is compiled again the next time.
    pub fn put(&self, digest: &str, compiled: &[u8]) {
        let name = self.name(digest);
        if let Err(error) = self.write(&name, compiled).and_then(|()| self.prune(&name)) {
            self.warn("write", &error);
        }
    }

    fn write(&self, name: &str, compiled: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{name}.{}.{number}.{UNFINISHED}", std::process::id()));
        let mut content = checksum(name, compiled);
        content.extend_from_slice(compiled);
        let done = fs::write(&unfinished, content).and_then(|()| fs::rename(&unfinished, self.folder.join(name)));
        if done.is_err() {
            // The unfinished file may not exist.
            let _ = fs::remove_file(&unfinished);
        }
        done
    }

    /// Removes the oldest files until at most the limit is left; `newest` is never removed.
    fn prune(&self, newest: &str) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let ours = path.extension().is_some_and(|own| own == EXTENSION || own == UNFINISHED);
            // A file that another thread has just removed is not counted.
            if let (true, Ok(meta)) = (ours && !path.ends_with(newest), fs::metadata(&path)) {
                files.push((meta.modified()?, path));
            }
        }
        let surplus = (files.len() + 1).saturating_sub(limits::POLICY_CACHE_FILES_MAX);
        files.sort();
        for (_, path) in &files[..surplus] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn warn(&self, what: &str, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "cannot {what} the cache of compiled policies; policies are compiled at each start");
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte more than allowed, so that a file that is too long fails its checksum.
    fs::File::open(path)?.take(limits::POLICY_CACHE_FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn checksum(name: &str, compiled: &[u8]) -> Vec<u8> {
    let mut sum = Sha256::new();
    sum.update(name.as_bytes());
    sum.update(compiled);
    sum.finalize().to_vec()
}
