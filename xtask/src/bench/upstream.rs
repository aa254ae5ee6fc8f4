//! The upstream of a measurement, on the core of the load.

use anyhow::{Context, Result, bail};
use dhow_testkit::{ChildGuard, ChildSpec, TempDir};

use super::job::Server;
use super::peer::Peer;
use super::{Programs, config, pinned};
use crate::build::installed;

/// Starts the upstream that answers `body` bytes; what stands in for a program that is not installed is told in `notes`.
pub fn start(
    dir: &TempDir,
    port: u16,
    server: Server,
    body: usize,
    programs: &Programs,
    notes: &mut Vec<String>,
) -> Result<ChildGuard> {
    let log = dir.path().join("upstream.log");
    let body = "x".repeat(body);
    if server == Server::Nghttpd {
        if let Some(nghttpd) = installed("nghttpd") {
            dir.write("bench", &body)?;
            let (program, mut args) = pinned(1, &nghttpd);
            args.extend(["--no-tls", "--workers=1", "--htdocs"].map(str::to_owned));
            args.extend([dir.path().display().to_string(), port.to_string()]);
            return Ok(ChildSpec::new(program, log).args(args).spawn()?);
        }
        notes.push("nghttpd is not installed: the upstream is nginx, which is the slowest of all".to_owned());
    }
    if let Some(nginx) = installed("nginx") {
        let http2 = if server == Server::Nginx { "" } else { " http2" };
        let answer = format!(
            "server {{ listen 127.0.0.1:{port}{http2}; location / {{ default_type text/plain; return 200 \"{body}\"; }} }}\n"
        );
        let config = dir.write("upstream.conf", config::nginx(dir.path(), "upstream", &answer))?;
        let (program, mut args) = pinned(1, &nginx);
        args.extend(Peer::Nginx.args(&config, dir.path()));
        return Ok(ChildSpec::new(program, log).args(args).spawn()?);
    }
    if server != Server::Nginx {
        bail!("nginx is not installed, and our own upstream speaks HTTP/1 only");
    }
    notes.push("nginx is not installed: the upstream is our own".to_owned());
    let (program, mut args) = pinned(1, &programs.load);
    args.push("upstream".to_owned());
    args.extend(["--port".to_owned(), port.to_string(), "--body".to_owned(), body.len().to_string()]);
    ChildSpec::new(program, log).args(args).spawn().context("upstream")
}
