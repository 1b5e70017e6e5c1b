//! The figures of every backend as lines of JSON: who connects gets one per sample.

use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{config::BackendsSocket, names::FollowedFiles, sampler::Shared};

/// Readers at once; more are closed at once.
const READERS_MAX: usize = 16;

/// How long a reader may take for a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of the file of groups is read.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// Makes the socket, in the place of one that nobody listens on any more.
///
/// # Errors
/// Where something else is there, the group is unknown, or it cannot be made.
pub fn open(config: &BackendsSocket) -> io::Result<UnixListener> {
    let path = &config.path;
    let group = config.group.as_deref().map(group_id).transpose()?;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let what = "another process listens on it";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let what = "something is there that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the socket's own mode, and takes away what the umask says.
    // Nobody can connect before it listens.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    if group.is_some() {
        chown(path, None, group)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    }
    listen(&socket, 16)?;
    UnixListener::from_std(socket.into())
}

/// The number of a group, by its name or number.
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let file = io::Read::take(std::fs::File::open("/etc/group")?, GROUP_BYTES_MAX);
    let text = io::read_to_string(file)?;
    find_group(&text, group).ok_or_else(|| {
        let what = format!("there is no group {group:?}: make it with `groupadd --system {group}`");
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

/// Looks a name up in lines of `name:password:number:members`.
fn find_group(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(group);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    })
}

/// Serves readers until it is dropped.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>, names: Arc<FollowedFiles>) {
    let readers = Arc::new(Semaphore::new(READERS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections on the socket for backends");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&readers).try_acquire_owned() else {
            continue;
        };
        let (shared, names) = (Arc::clone(&shared), Arc::clone(&names));
        tokio::spawn(async move {
            if let Err(error) = write_samples(stream, &shared, &names).await {
                tracing::debug!(%error, "a reader of backends has gone");
            }
            drop(permit);
        });
    }
}

/// Writes every sample from now on; one that comes while a line is written takes the
/// place of those before it: counters are cumulative, nothing is lost with a line.
async fn write_samples(
    mut stream: UnixStream,
    shared: &Shared,
    names: &FollowedFiles,
) -> io::Result<()> {
    let mut samples = shared.backends.subscribe();
    loop {
        // A reader that is gone ends the wait, so that nothing is read for it.
        tokio::select! {
            changed = samples.changed() => changed.map_err(io::Error::other)?,
            closed = closed(&stream) => return closed,
        }
        let counters = Arc::clone(&samples.borrow_and_update());
        let line = super::sample(&counters, &names.names()).to_line()?;
        timeout(WRITE_TIMEOUT, stream.write_all(line.as_bytes())).await??;
    }
}

/// Ends once the reader has closed; what it writes is passed over.
async fn closed(stream: &UnixStream) -> io::Result<()> {
    let mut passed_over = [0; 256];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut passed_over) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The socket's file, which goes when nobody answers there any more.
#[derive(Debug)]
pub struct SocketFile(std::path::PathBuf);

impl SocketFile {
    /// Removes `path` when it is dropped.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn config(path: &Path, group: Option<&str>) -> BackendsSocket {
        BackendsSocket {
            path: path.to_owned(),
            group: group.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_and_its_groups_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends.sock");
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        drop(open(&config(&path, None)).unwrap());
        assert_eq!(mode(), 0o600);
        let own = rustix::process::getgid().as_raw();
        let listener = open(&config(&path, Some(&own.to_string()))).unwrap();
        assert_eq!(
            (mode(), std::fs::metadata(&path).unwrap().gid()),
            (0o660, own)
        );
        let taken = open(&config(&path, None)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        let there = open(&config(&path, None)).unwrap_err();
        assert_eq!(there.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
        let unknown = open(&config(&path, Some("no such group"))).unwrap_err();
        assert!(unknown.to_string().contains("groupadd"), "{unknown}");
    }

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let text = "root:x:0:\nspeedmimi-proxy:x:990:a,b\nbroken\n:::\nx:y:z:\n";
        assert_eq!(find_group(text, "speedmimi-proxy"), Some(990));
        assert_eq!(find_group(text, "root"), Some(0));
        for unknown in ["speedmimi", "", "x", "broken", "990"] {
            assert_eq!(find_group(text, unknown), None, "{unknown}");
        }
    }
}
