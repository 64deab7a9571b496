//! A small shared file on which each session writes what it is about to ask of the vendor library: when
//! a host hangs or dies, the front reads there which jobs the library had in its hands, and since when.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::host_ipc::clock::nanoseconds;

/// What one session has asked of the library last. It is not wiped after the call: a job that was
/// answered is nobody's concern any more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct InFlightCall {
    /// The job's sequence number; 0: none.
    pub sequence: u64,
    /// When the call counts as stuck ([`monotonic`](crate::host_ipc::monotonic)).
    pub stuck_at: u64,
}

/// A shared file with one [`InFlightCall`] per session; the management session's is number 0.
#[derive(Debug)]
pub struct InFlightTable(File);

impl InFlightTable {
    const ENTRY: u64 = 16;

    /// An empty table for so many sessions, the management session included.
    ///
    /// # Errors
    /// The kernel gives no memory file.
    pub fn create(sessions: u32) -> io::Result<Self> {
        let file = memory_file()?;
        file.set_len(Self::ENTRY * u64::from(sessions))?;
        Ok(Self(file))
    }

    /// Gives the table to the process at the other end, with one byte.
    ///
    /// # Errors
    /// The socket is closed or refuses.
    pub fn send(&self, socket: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let table = [self.0.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&table)) {
            return Err(io::Error::other("no room for one descriptor"));
        }
        sendmsg(
            socket,
            &[IoSlice::new(b"B")],
            &mut control,
            SendFlags::empty(),
        )?;
        Ok(())
    }

    /// Takes the table that the front sends as its first byte.
    ///
    /// # Errors
    /// The front sent something else.
    pub fn receive(socket: &UnixStream) -> io::Result<Self> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let table = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        let table: OwnedFd = table.ok_or_else(|| io::Error::other("the front sent no table"))?;
        Ok(Self(table.into()))
    }

    /// Writes what a session asks of the library `now`, and when that counts as stuck.
    pub fn begin(&self, session: u32, sequence: u64, now: u64, limit: Duration) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sequence.to_ne_bytes());
        bytes[8..].copy_from_slice(&now.saturating_add(nanoseconds(limit)).to_ne_bytes());
        // A table that cannot be written costs charging and hang detection, not a MAC.
        let _ = self
            .0
            .write_all_at(&bytes, Self::ENTRY * u64::from(session));
    }

    /// What so many sessions are at.
    pub fn entries(&self, sessions: u32) -> Vec<InFlightCall> {
        let mut bytes = vec![0; 16 * sessions as usize];
        if self.0.read_exact_at(&mut bytes, 0).is_err() {
            return Vec::new();
        }
        let mut bytes = Bytes::from(bytes);
        (0..sessions)
            .map(|_| InFlightCall {
                sequence: bytes.get_u64_ne(),
                stuck_at: bytes.get_u64_ne(),
            })
            .collect()
    }
}

#[cfg(target_os = "linux")]
fn memory_file() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("hsmac-table", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("hsmac-table-{}", uuid::Uuid::new_v4()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_ipc::monotonic;

    #[test]
    fn the_in_flight_table_crosses_a_socket_and_shows_calls() {
        let (front, host) = UnixStream::pair().unwrap();
        let table = InFlightTable::create(3).unwrap();
        table.send(&front).unwrap();
        let theirs = InFlightTable::receive(&host).unwrap();
        theirs.begin(1, 42, monotonic(), Duration::from_secs(1));
        let entries = table.entries(3);
        assert_eq!(entries[1].sequence, 42);
        assert!(entries[1].stuck_at > monotonic());
        assert_eq!(table.entries(3)[2], InFlightCall::default());
    }
}
