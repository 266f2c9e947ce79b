//! What a request is answered with: one JSON document on one line, and a long list in it piece by
//! piece.
//!
//! A node that knows sixteen thousand destinations has eight megabytes of JSON to say of them, and some
//! fifty as a tree. The main loop takes a plain copy of what it knows, and the words are made where
//! they are written, as fast as they are read: no more of them than [`PIECE`] at a time.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// An answer. Of a list, a member of the document that comes first, one item after the other is made.
pub(crate) struct Answer {
    list: Option<(&'static str, Items)>,
    /// The other members.
    rest: Value,
}

type Items = Box<dyn Iterator<Item = Value> + Send>;

impl From<Value> for Answer {
    fn from(rest: Value) -> Self {
        Self { list: None, rest }
    }
}

impl Answer {
    /// A document with this list and, beside it, these members.
    pub(crate) fn with_list<T: Send + 'static>(
        name: &'static str,
        items: Vec<T>,
        words: fn(&T) -> Value,
        rest: Value,
    ) -> Self {
        let items = items.into_iter().map(move |item| words(&item));
        Self { list: Some((name, Box::new(items))), rest }
    }

    /// Writes it, and a line's end. Others on this thread have a turn after each piece.
    ///
    /// # Errors
    /// If the reader is gone, or takes nothing for [`PATIENCE`].
    pub(crate) async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.write_within(PATIENCE, to).await
    }

    async fn write_within(
        self,
        patience: Duration,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut piece = String::new();
        let rest = self.rest.to_string();
        if let Some((name, items)) = self.list {
            piece.push_str(&format!("{{{}:[", Value::from(name)));
            for (number, item) in items.enumerate() {
                if number > 0 {
                    piece.push(',');
                }
                piece.push_str(&item.to_string());
                if piece.len() >= PIECE {
                    send(patience, to, &piece).await?;
                    piece.clear();
                    tokio::task::yield_now().await;
                }
            }
            piece.push(']');
            match rest.strip_prefix('{') {
                Some("}") | None => piece.push('}'),
                Some(members) => {
                    piece.push(',');
                    piece.push_str(members);
                }
            }
        } else {
            piece.push_str(&rest);
        }
        piece.push('\n');
        send(patience, to, &piece).await
    }
}

async fn send(
    patience: Duration,
    to: &mut (impl AsyncWrite + Unpin),
    piece: &str,
) -> io::Result<()> {
    let sent = tokio::time::timeout(patience, to.write_all(piece.as_bytes())).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Octets that are made at once: half a millisecond of work, a few dozen destinations.
const PIECE: usize = 16 << 10;
/// How long one who has asked may leave a piece unread, while what it is made of is kept for him.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn written(answer: Answer) -> Value {
        let mut octets = Vec::new();
        answer.write(&mut octets).await.unwrap();
        assert_eq!(octets.iter().filter(|octet| **octet == b'\n').count(), 1);
        assert_eq!(octets.last(), Some(&b'\n'));
        serde_json::from_slice(&octets).unwrap()
    }

    #[tokio::test]
    async fn it_reads_as_if_it_had_been_one() {
        let words = |n: &u32| json!({ "n": n, "text": "a\n\"b\"" });
        for count in [0, 1, 2, 3000] {
            let items: Vec<u32> = (0..count).collect();
            let list: Vec<Value> = items.iter().map(words).collect();
            let rest = json!({ "version": "1", "counters": { "keying": {} } });
            let whole = json!({ "version": "1", "counters": { "keying": {} }, "list": list });
            let answer = Answer::with_list("list", items.clone(), words, rest);
            assert_eq!(written(answer).await, whole);
            let alone = Answer::with_list("list", items, words, json!({}));
            assert_eq!(written(alone).await, json!({ "list": list }));
        }
        assert_eq!(written(json!({ "guard": true }).into()).await, json!({ "guard": true }));
        assert_eq!(written(Value::Null.into()).await, Value::Null);
    }

    /// P13: words are made as they are read, and whoever reads none has few made for him.
    #[tokio::test]
    async fn no_more_is_made_than_is_read() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let words = |_: &u32| {
            MADE.fetch_add(1, Ordering::Relaxed);
            json!({ "text": "x".repeat(500) })
        };
        let answer = Answer::with_list("list", (0..16_000).collect(), words, json!({}));
        let (mut to, mut from) = tokio::io::duplex(4096);
        let read = Arc::new(AtomicUsize::new(0));
        let patience = Duration::from_secs(2);
        let writing = tokio::spawn(async move { answer.write_within(patience, &mut to).await });
        let mut most = 0;
        let mut buffer = vec![0; 1000];
        for _ in 0..2000 {
            let got = from.read(&mut buffer).await.unwrap();
            read.fetch_add(got, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let ahead = MADE.load(Ordering::Relaxed) * 500;
            most = most.max(ahead.saturating_sub(read.load(Ordering::Relaxed)));
        }
        assert!(most <= 4096 + 2 * PIECE, "{most} octets");
        // From now on nobody reads: what is kept for him is let go.
        let ended = writing.await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(MADE.load(Ordering::Relaxed) < 16_000);
    }
}
