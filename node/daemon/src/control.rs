//! The control socket: one JSON line asks, JSON lines answer.
//!
//! `{"request":"status"}` and `{"request":"peers"}` get one document.
//! `{"request":"explain","address":"192.0.2.12"}` says why an address is treated as it is,
//! `{"request":"call","address":"192.0.2.12"}` has keys agreed with it (from another address of ours
//! with `"source"`) and is answered when that is decided,
//! `{"request":"forget","address":"192.0.2.12"}` closes what there is with it.
//! `{"request":"reload"}` reads the configuration anew, `{"request":"guard","up":true}` makes a guard
//! that stays when the daemon goes. `{"request":"events"}` gets a line for each
//! transition until the asker hangs up. Only who may open the socket (its owner, mode 0600) may ask.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::answer::Answer;

/// What can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Everything there is to know now.
    Status,
    /// Every transition from now on.
    Events,
    /// Why this address is treated as it is.
    Explain {
        /// The destination.
        address: IpAddr,
    },
    /// The other ends of established IKE SAs.
    Peers,
    /// Agree on keys with this address, as the first packet to it would have it done.
    Call {
        /// The destination.
        address: IpAddr,
        /// Whose packet that would be; the address that the kernel would choose if it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<IpAddr>,
    },
    /// Close what there is with this address.
    Forget {
        /// The destination.
        address: IpAddr,
    },
    /// Read the configuration anew.
    Reload,
    /// Make or remove the guard.
    Guard {
        /// Make it.
        up: bool,
    },
}

/// A request on its way to the main loop, and where its answer goes.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

/// The listening socket; removed when dropped.
pub(crate) struct Control {
    path: PathBuf,
}

impl Control {
    /// Listens at `path`. Refuses to take over from a daemon that still answers there.
    pub(crate) fn listen(
        path: &Path,
        requests: mpsc::Sender<Asked>,
        events: broadcast::Sender<String>,
    ) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("node.control-socket: {}", directory.display()))?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            anyhow::bail!("node.control-socket: {}: another oe-node answers there", path.display());
        }
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .with_context(|| format!("node.control-socket: {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("node.control-socket: {}", path.display()))?;
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Too many open files, most likely: they will be fewer.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (requests, events) = (requests.clone(), events.clone());
                tokio::spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = serve(stream, &requests, &events).await;
                });
            }
        });
        Ok(Self { path: path.into() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves one client: a line for each of its lines, until it hangs up or asks for events, which is
/// all that it gets from then on.
async fn serve(
    stream: UnixStream,
    requests: &mpsc::Sender<Asked>,
    events: &broadcast::Sender<String>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut read).take(MAX_REQUEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match serde_json::from_str(&line) {
            Ok(Request::Events) => return tell(write, events.subscribe()).await,
            Ok(request) => {
                let (answer, answered) = oneshot::channel();
                let gone = || json!({ "error": "the daemon is stopping" }).into();
                let answer = match requests.send((request, answer)).await {
                    Ok(()) => answered.await.unwrap_or_else(|_| gone()),
                    Err(_) => gone(),
                };
                answer.write(&mut write).await?;
            }
            // Where its next line begins nobody knows.
            Err(why) => {
                let answer = json!({ "error": format!("not a request: {why}") });
                return write.write_all(format!("{answer}\n").as_bytes()).await;
            }
        }
    }
}

/// Tells a client of every event.
async fn tell(
    mut write: OwnedWriteHalf,
    mut events: broadcast::Receiver<String>,
) -> std::io::Result<()> {
    write.write_all(b"{\"event\":\"listening\"}\n").await?;
    loop {
        match events.recv().await {
            Ok(event) => write.write_all(event.as_bytes()).await?,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                let note = json!({ "event": "lost", "detail": { "events": lost } });
                write.write_all(format!("{note}\n").as_bytes()).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

/// Puts a request to a running daemon; blocking, for the command line.
pub(crate) fn put(path: &Path, request: &Request) -> anyhow::Result<impl std::io::Read + use<>> {
    use std::io::Write as _;
    let mut stream = std::os::unix::net::UnixStream::connect(path).map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "only root may ask",
            _ => "is oe-node running?",
        };
        anyhow::Error::new(error).context(format!("{}: {what}", path.display()))
    })?;
    let patience = match request {
        Request::Events => None,
        Request::Call { .. } => Some(CALL_PATIENCE + PATIENCE),
        _ => Some(PATIENCE),
    };
    stream.set_read_timeout(patience)?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    Ok(stream)
}

/// Asks a running daemon one thing; blocking, for the command line.
pub(crate) fn ask(path: &Path, request: &Request) -> anyhow::Result<Value> {
    let answer = std::io::BufReader::new(put(path, request)?);
    // It is read as it comes: eight megabytes need not lie here beside what they say.
    let mut documents = serde_json::Deserializer::from_reader(answer).into_iter::<Value>();
    let answer = documents.next().context("the daemon does not answer")?;
    let answer = answer.map_err(|error| {
        let io = error.is_io() || error.is_eof();
        let what =
            if io { "the daemon does not answer" } else { "the daemon's answer is not JSON" };
        anyhow::Error::new(error).context(what)
    })?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        anyhow::bail!("{error}");
    }
    Ok(answer)
}

/// How long the daemon waits for what becomes of a call: DNS and two gateways that do not answer have
/// their time.
pub(crate) const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// The longest request line, octets.
const MAX_REQUEST: u64 = 4096;
/// How long the command line waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    const GOOD: [&str; 8] = [
        r#"{"request":"status"}"#,
        r#"{"request":"peers"}"#,
        r#"{"request":"reload"}"#,
        r#"{"request":"events"}"#,
        r#"{"request":"explain","address":"192.0.2.12"}"#,
        r#"{"request":"forget","address":"2001:db8::12"}"#,
        r#"{"request":"call","address":"192.0.2.12"}"#,
        r#"{"request":"call","address":"2001:db8::12","source":"2001:db8::1"}"#,
    ];

    /// CVE-2018-5388: whatever stands on a line is a request that reads back, or none.
    #[test]
    fn control_requests() {
        let mut state: u64 = 88_172_645_463_325_252;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % limit as u64).unwrap()
        };
        let pieces = b"\"{}[]:,\\u0000-1e999 nul\xff\n";
        let mut taken = 0;
        for round in 0..20_000 {
            let mut line = GOOD[round % GOOD.len()].as_bytes().to_vec();
            for _ in 0..below(4) {
                let at = below(line.len());
                match below(4) {
                    0 => line[at] ^= 1 << below(8),
                    1 => line.truncate(at.max(1)),
                    2 => line.insert(at, pieces[below(pieces.len())]),
                    _ => {
                        let other = GOOD[below(GOOD.len())].as_bytes();
                        line.splice(at..at, other[below(other.len())..].iter().copied());
                    }
                }
            }
            if let Ok(request) = serde_json::from_slice::<Request>(&line) {
                taken += 1;
                let again = serde_json::to_string(&request).unwrap();
                assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), request);
            }
        }
        assert!(taken > 1000, "{taken}");
        for deep in ["[", "{\"a\":", "{\"request\":["] {
            assert!(serde_json::from_str::<Request>(&deep.repeat(1300)).is_err());
        }
    }

    /// The socket itself, against clients that send nothing, too much, nonsense, and hang up: each
    /// gets one line or none, and the next is served.
    #[test]
    fn clients_of_every_kind() {
        let folder = std::env::temp_dir().join(format!("oe-node-control-{}", std::process::id()));
        let path = folder.join("control");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (requests, mut asked) = mpsc::channel::<Asked>(4);
        let (events, _) = broadcast::channel(4);
        let control = runtime.block_on(async { Control::listen(&path, requests, events) }).unwrap();
        runtime.spawn(async move {
            while let Some((request, answer)) = asked.recv().await {
                let _ = answer.send(json!({ "asked": format!("{request:?}") }).into());
            }
        });
        let long = vec![b'x'; 1 << 20];
        let nested = [b"{\"request\":".repeat(2000), b"\n".to_vec()].concat();
        for octets in [&b""[..], b"\n", b"\0\0\0\0\n", b"\xff\xfe\n", b"{}\n", &long, &nested] {
            let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
            // It may hang up before it has heard all of it.
            let _ = client.write_all(octets);
            let _ = client.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer);
            assert!(answer.len() < 1000, "{} octets", answer.len());
            assert!(!answer.contains(&0x1b));
            let served = ask(&path, &Request::Peers).unwrap();
            assert_eq!(served["asked"], "Peers");
        }
        // Who says nothing is waited for by nobody else.
        let silent: Vec<_> =
            (0..50).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(ask(&path, &Request::Status).unwrap()["asked"], "Status");
        drop((silent, control));
        runtime.shutdown_background();
        let _ = std::fs::remove_dir_all(folder);
    }
}
