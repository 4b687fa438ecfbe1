//! A certificate authority and two certificates for 127.0.0.1 and localhost, made with the `openssl` command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// PEM files that live as long as the directory they were made in.
#[derive(Debug, Clone)]
pub struct Certificates {
    pub ca: PathBuf,
    /// The database server's certificate.
    pub server: PathBuf,
    pub server_key: PathBuf,
    /// The proxy's certificate, from the same authority.
    pub proxy: PathBuf,
    pub proxy_key: PathBuf,
}

impl Certificates {
    /// # Panics
    /// When `openssl` is missing or refuses.
    #[must_use]
    pub fn make(directory: &Path) -> Self {
        let file = |name: &str| directory.join(name);
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let mut authority = vec!["req", "-x509", "-days", "30", "-subj", "/CN=Crossfade test CA", "-out", "ca.crt"];
        authority.extend(["-keyout", "ca.key"]);
        authority.extend(new_key);
        openssl(directory, &authority);
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
        std::fs::write(file("names.cnf"), names).expect("names are written");
        for who in ["server", "proxy"] {
            let (key, request, certificate) = (format!("{who}.key"), format!("{who}.csr"), format!("{who}.crt"));
            let mut ask = vec!["req", "-subj", "/CN=localhost", "-keyout", &key, "-out", &request];
            ask.extend(new_key);
            openssl(directory, &ask);
            let mut sign = vec!["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "30"];
            sign.extend(["-CAcreateserial", "-extfile", "names.cnf", "-out", &certificate]);
            openssl(directory, &sign);
        }
        Self {
            ca: file("ca.crt"),
            server: file("server.crt"),
            server_key: file("server.key"),
            proxy: file("proxy.crt"),
            proxy_key: file("proxy.key"),
        }
    }
}

fn openssl(directory: &Path, args: &[&str]) {
    let output = Command::new("openssl").current_dir(directory).args(args).stdin(Stdio::null()).output();
    let output = output.expect("the openssl command line is needed for tests with TLS");
    assert!(output.status.success(), "openssl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}
