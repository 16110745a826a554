//! How two servers accept each other, before anything else is said.
//!
//! 1. The dialing side sends a preamble of 8 bytes: `LICT`, the lowest and the highest version it speaks, the
//!    [lane](Lane), the way of [protection](crate::Security). The other answers 8 bytes: `LICT`, 0 or what does not
//!    fit (1 version, 2 protection, 3 lane), its own lowest and highest version, its own protection.
//! 2. TLS, where there is protection.
//! 3. The dialing side sends a `PeerHello` as a frame, which repeats the preamble, and the other a `PeerAnswer`
//!    (`proto/lictor/v1/handshake.proto`), each of at most [`HELLO_MAX_BYTES`].
//!
//! All reads are of a known small size, so whoever connects costs the same memory whatever it sends.

use std::net::SocketAddr;
use std::sync::Arc;

use lictor_proto::{RaftId, v1};
use parking_lot::RwLock;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::{ClusterId, Identity, Limits, Remote, Role};
use crate::error::HandshakeError;
use crate::handler::Handler;
use crate::security::{Mode, Security};
use crate::stream::{Stream, tune};
use crate::wire::length_prefix;

const MAGIC: [u8; 4] = *b"LICT";
/// The versions of the protocol that this release speaks.
const VERSIONS: (u8, u8) = (1, 1);
/// Largest hello and answer.
const HELLO_MAX_BYTES: usize = 4096;
/// Longest name, address, datacenter and version.
const TEXT_MAX_BYTES: usize = 512;
/// Longest refusal.
const REFUSAL_MAX_CHARS: usize = 512;
/// Most addresses of one host name that are tried.
const ADDRESSES_MAX: usize = 4;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Raft messages that must not wait: heartbeats, votes, answers.
    Urgent = 1,
    /// All other raft messages.
    Append = 2,
    /// Calls to a peer.
    Rpc = 3,
    /// One stream of bytes each way.
    Bulk = 4,
    /// A single call, also between servers that share no cluster yet.
    Ask = 5,
    /// A single call between servers of whatever datacenters and clusters.
    Abroad = 6,
}

impl Lane {
    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Lane; 6] = [
            Lane::Urgent,
            Lane::Append,
            Lane::Rpc,
            Lane::Bulk,
            Lane::Ask,
            Lane::Abroad,
        ];
        ALL.into_iter().find(|lane| *lane as u8 == byte)
    }
}

/// What both sides of a handshake need to know of this server.
pub(crate) struct Local {
    pub(crate) identity: Identity,
    pub(crate) cluster: RwLock<Option<ClusterId>>,
    pub(crate) security: Security,
    pub(crate) limits: Limits,
    pub(crate) handler: Arc<dyn Handler>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Connects to `address` for `lane`, and to nobody but `expected` if that is given.
pub(crate) async fn dial(
    local: &Local,
    address: &str,
    lane: Lane,
    expected: Option<RaftId>,
) -> Result<(Stream, Remote), HandshakeError> {
    let socket = timeout(local.limits.connect_timeout, connect(address))
        .await
        .map_err(|_| {
            std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer to the connection attempt",
            )
        })??;
    tune(&socket)?;
    timeout(
        local.limits.handshake_timeout,
        introduce(local, socket, lane, expected),
    )
    .await
    .map_err(|_| HandshakeError::Timeout)?
}

async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = None;
    for resolved in tokio::net::lookup_host(address).await?.take(ADDRESSES_MAX) {
        match TcpStream::connect(resolved).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")))
}

async fn introduce(
    local: &Local,
    mut socket: TcpStream,
    lane: Lane,
    expected: Option<RaftId>,
) -> Result<(Stream, Remote), HandshakeError> {
    let peer = socket.peer_addr()?;
    let mode = local.security.mode();
    let preamble = [VERSIONS.0, VERSIONS.1, lane as u8, mode as u8];
    socket.write_all(&[MAGIC, preamble].concat()).await?;
    let mut answer = [0; 8];
    socket.read_exact(&mut answer).await.map_err(no_peer)?;
    let [magic @ .., status, low, high, their_mode] = answer;
    if magic != MAGIC {
        return Err(HandshakeError::NotAPeer);
    }
    let complaint = match status {
        0 => None,
        1 => Some(version_differs((low, high))),
        2 => Some(mode_differs(mode, their_mode)),
        _ => Some("the other server does not know what this connection is for".to_owned()),
    };
    if let Some(complaint) = complaint {
        return Err(HandshakeError::Refused(complaint));
    }

    let mut stream = local.security.connect(socket).await?;
    let hello = hello_of(local, &preamble).encode_to_vec();
    write_message(&mut stream, &hello).await?;
    // A refused certificate is told here: in TLS 1.3 the dialing side is done before the other has seen it.
    let answer: v1::PeerAnswer = read_message(&mut stream).await.map_err(|error| match error {
        HandshakeError::Io(error) => local.security.explain(error),
        error => error,
    })?;
    if answer.itself {
        return Err(HandshakeError::Itself);
    }
    if !answer.refused.is_empty() {
        let text: String = answer.refused.chars().filter(|c| !c.is_control()).collect();
        return Err(HandshakeError::Refused(text));
    }
    let remote = answer
        .hello
        .and_then(|hello| remote_of(hello, Role::Server, peer))
        .ok_or(HandshakeError::NotAPeer)?;
    if expected.is_some_and(|expected| expected != remote.identity.raft_id) {
        let text = format!(
            "another server than expected, {}, is at this address",
            remote.identity.name
        );
        return Err(HandshakeError::Refusing(text));
    }
    Ok((stream, remote))
}

/// Takes a connection. Bounded in time by the caller.
pub(crate) async fn accept(
    local: &Local,
    mut socket: TcpStream,
    from: SocketAddr,
) -> Result<(Stream, Lane, Remote), HandshakeError> {
    tune(&socket)?;
    let mut start = [0; 8];
    socket.read_exact(&mut start).await.map_err(no_peer)?;
    let [magic @ .., low, high, lane, their_mode] = start;
    if magic != MAGIC || low > high {
        return Err(HandshakeError::NotAPeer);
    }
    let mode = local.security.mode();
    let lane = Lane::from_byte(lane);
    let (status, complaint) = if low > VERSIONS.1 || high < VERSIONS.0 {
        (1, Some(version_differs((low, high))))
    } else if their_mode != mode as u8 {
        (2, Some(mode_differs(mode, their_mode)))
    } else if lane.is_none() {
        (
            3,
            Some("the other server connects for something unknown".to_owned()),
        )
    } else {
        (0, None)
    };
    let answer = [status, VERSIONS.0, VERSIONS.1, mode as u8];
    socket.write_all(&[MAGIC, answer].concat()).await?;
    let (None, Some(lane)) = (complaint.as_ref(), lane) else {
        return Err(HandshakeError::Refusing(complaint.unwrap_or_default()));
    };

    let (mut stream, role) = local.security.accept(socket).await?;
    let hello: v1::PeerHello = read_message(&mut stream).await?;
    if hello.preamble[..] != start[4..] {
        return Err(HandshakeError::Tls(
            "the preamble was changed on its way".to_owned(),
        ));
    }
    let remote = remote_of(hello, role, from).ok_or(HandshakeError::NotAPeer)?;
    let itself = remote.identity.raft_id == local.identity.raft_id;
    let verdict = if itself {
        Err(HandshakeError::Itself)
    } else {
        judge(local, &remote, lane).map_err(HandshakeError::Refusing)
    };
    let answer = v1::PeerAnswer {
        refused: verdict
            .as_ref()
            .err()
            .map_or_else(String::new, |error| shortened(&error.to_string())),
        itself,
        hello: verdict.is_ok().then(|| hello_of(local, &start[4..])),
    };
    write_message(&mut stream, &answer.encode_to_vec()).await?;
    verdict.map(|()| (stream, lane, remote))
}

/// Whether two servers may talk. The words hold on both sides, since each shows them.
fn judge(local: &Local, remote: &Remote, lane: Lane) -> Result<(), String> {
    let (here, there) = (&local.identity, &remote.identity);
    let is_for_servers = matches!(lane, Lane::Urgent | Lane::Append | Lane::Abroad);
    if remote.role == Role::Agent && is_for_servers {
        return Err(format!(
            "the certificate of {} is one of a client agent",
            there.name
        ));
    }
    if lane == Lane::Abroad {
        // Whoever has the key may ask; what a server of another cluster may ask for is the handler's to know.
        return Ok(());
    }
    if here.datacenter != there.datacenter {
        return Err(format!(
            "different datacenters: {} is in {}, {} in {}",
            here.name, here.datacenter, there.name, there.datacenter
        ));
    }
    match (*local.cluster.read(), remote.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err(format!(
                "different clusters: {} is of {ours}, {} of {theirs}",
                here.name, there.name
            ));
        }
        (ours, theirs) if lane != Lane::Ask && (ours.is_none() || theirs.is_none()) => {
            let outside = if ours.is_none() { here } else { there };
            return Err(format!("{} has not joined a cluster yet", outside.name));
        }
        _ => {}
    }
    local.handler.admit(remote).map_err(|text| shortened(&text))
}

fn version_differs((low, high): (u8, u8)) -> String {
    format!(
        "different versions of the peer protocol: this server speaks {} to {}, the other {low} to {high}",
        VERSIONS.0, VERSIONS.1
    )
}

fn mode_differs(ours: Mode, theirs: u8) -> String {
    let theirs =
        Mode::from_byte(theirs).map_or_else(|| "something unknown".to_owned(), |mode| mode.to_string());
    format!("different protection: this server uses {ours}, the other {theirs}")
}

/// Who closes before it has said anything of ours is not one of us.
fn no_peer(error: std::io::Error) -> HandshakeError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => HandshakeError::NotAPeer,
        _ => HandshakeError::Io(error),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(REFUSAL_MAX_CHARS).collect()
}

fn hello_of(local: &Local, preamble: &[u8]) -> v1::PeerHello {
    let Identity {
        node_id,
        raft_id,
        name,
        address,
        datacenter,
        version,
    } = local.identity.clone();
    let cluster = *local.cluster.read();
    v1::PeerHello {
        cluster_id: cluster
            .map_or_else(Vec::new, |id| id.0.as_bytes().to_vec())
            .into(),
        node_id: node_id.as_bytes().to_vec().into(),
        raft_id: raft_id.0,
        name,
        address,
        datacenter,
        version,
        preamble: preamble.to_vec().into(),
    }
}

/// None for what no server of ours says.
fn remote_of(hello: v1::PeerHello, role: Role, socket: SocketAddr) -> Option<Remote> {
    let cluster = match &hello.cluster_id[..] {
        [] => None,
        id => Some(ClusterId(Uuid::from_slice(id).ok()?)),
    };
    let identity = Identity {
        node_id: Uuid::from_slice(&hello.node_id).ok()?,
        raft_id: RaftId(hello.raft_id),
        name: hello.name,
        address: hello.address,
        datacenter: hello.datacenter,
        version: hello.version,
    };
    let texts = [
        &identity.name,
        &identity.address,
        &identity.datacenter,
        &identity.version,
    ];
    let fits = |text: &&String| text.len() <= TEXT_MAX_BYTES && !text.chars().any(char::is_control);
    let sound = identity.raft_id.0 != 0 && !identity.name.is_empty() && texts.iter().all(fits);
    sound.then_some(Remote {
        identity,
        cluster,
        role,
        socket,
    })
}

async fn write_message(stream: &mut Stream, message: &[u8]) -> std::io::Result<()> {
    let framed = [&length_prefix(message.len()), message].concat();
    stream.write_all(&framed).await?;
    stream.flush().await
}

async fn read_message<M: prost::Message + Default>(stream: &mut Stream) -> Result<M, HandshakeError> {
    let length = stream.read_u32_le().await.map_err(no_peer)? as usize;
    if length > HELLO_MAX_BYTES {
        return Err(HandshakeError::NotAPeer);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(no_peer)?;
    M::decode(&bytes[..]).map_err(|_| HandshakeError::NotAPeer)
}
