//! The figures of every backend as lines of JSON: who connects gets one per sample.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    config::BackendsSocket,
    names::FollowedFiles,
    sampler::Shared,
    unix_socket::{self, SocketFile},
};

/// Readers at once; more are closed at once.
const READERS_MAX: usize = 16;

/// How long a reader may take for a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of the file of groups is read.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// Makes the socket, which takes more rights than the agent keeps: a group that it is not
/// in.
///
/// # Errors
/// Where something else is there, the group is unknown, or it cannot be made.
pub fn open(config: &BackendsSocket) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    let group = config.group.as_deref().map(group_id).transpose()?;
    let listener = unix_socket::listen(&config.path, group)?;
    Ok((listener, SocketFile::new(config.path.clone())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_group_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let config = BackendsSocket {
            path: dir.path().join("backends.sock"),
            group: Some("no such group".to_owned()),
        };
        let unknown = open(&config).unwrap_err();
        assert!(unknown.to_string().contains("groupadd"), "{unknown}");
        assert!(!config.path.exists());
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
