//! Unix sockets that the agent listens on: who may connect, and what stands there before.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen as listen_on,
        socket_with,
    },
};
/// Makes the socket, in the place of one that nobody listens on any more.  Its owner may
/// connect, and this group.  It does not block, as a runtime wants it.
///
/// # Errors
/// Where somebody listens on it, something else is there, or it cannot be made.
pub fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        let what = "another process listens on it: stop that one, or write another path";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            let what = "something is there that is no socket: remove it, or write another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the socket's own mode, less what the umask says.  Nobody can
    // connect before it listens.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    if group.is_some() {
        chown(path, None, group)?;
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
    }
    listen_on(&socket, 16)?;
    Ok(socket.into())
}

/// A socket's file, which goes when nobody answers there any more, also where the start
/// fails.  One that stays behind is replaced anyway.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Removes `path` when it is dropped.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_socket_that_was_left_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        drop(listen(&path, None).unwrap());
        assert_eq!(mode(), 0o600);
        let own = rustix::process::getgid().as_raw();
        let listener = listen(&path, Some(own)).unwrap();
        assert_eq!((mode(), fs::metadata(&path).unwrap().gid()), (0o660, own));
        let taken = listen(&path, None).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        let there = listen(&path, None).unwrap_err();
        assert_eq!(there.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
