//! Unix sockets: created with their mode, removed with their listener.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{fs::Mode, net as unix};
use tokio::net::UnixListener;

use crate::front::settings::SocketMode;

/// Binds a path. Replaces the socket file of a process that has ended, and no other file.
pub(super) fn bind(
    path: &Path,
    mode: Option<SocketMode>,
    backlog: u32,
) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let mode = mode.map_or(0o600, |mode| mode.0);
    let flags = unix::SocketFlags::CLOEXEC | unix::SocketFlags::NONBLOCK;
    let socket: OwnedFd = unix::socket_with(
        unix::AddressFamily::UNIX,
        unix::SocketType::STREAM,
        flags,
        None,
    )?;
    // Security: on Linux a socket's file gets the mode of the unbound socket at bind, so at no time
    // can somebody connect whom the mode keeps out.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    unix::bind(&socket, &unix::SocketAddrUnix::new(path)?)?;
    let file = SocketFile::of(path)?;
    // The umask may have removed bits that the settings give.
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    unix::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes the socket file of a process that has ended, and no other file.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "there is a file that is no socket; remove it or set another path",
            ));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A process listens there: connected, its backlog is full, or we lack permission.
        Ok(_) | Err(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

/// The socket's file. Removed with the listener unless another process has replaced it.
pub struct SocketFile {
    pub(super) path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Self::identity(path)?,
        })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
