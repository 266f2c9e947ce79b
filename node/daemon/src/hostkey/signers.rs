//! Signing, on threads of its own: the one operation of a handshake that takes as long as all
//! others together, and that the main loop must not wait for, nor for the processor it takes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use super::HostKey;

/// What became of a job: for whom it was, and the signature if there is one.
pub(crate) type Signed = (ike::IkeId, Option<Vec<u8>>);

/// A few threads and one queue. They end when this is dropped.
pub(crate) struct Signers {
    queue: Arc<Queue>,
}

struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

/// What waits. As many as there are unfinished handshakes, which is where they are bounded.
#[derive(Default)]
struct Jobs {
    /// Calls of our own: somebody here waits for them.
    ours: VecDeque<ike::Sign>,
    strangers: VecDeque<ike::Sign>,
    ended: bool,
}

impl Signers {
    /// Starts the threads. One processor is left to the main loop and to packets.
    ///
    /// # Errors
    /// If the system has no threads to give.
    pub(crate) fn start(key: HostKey, signed: &UnboundedSender<Signed>) -> std::io::Result<Self> {
        let key = Arc::new(key);
        let queue = Arc::new(Queue { jobs: Mutex::default(), more: Condvar::new() });
        let signers = Self { queue: Arc::clone(&queue) };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors.saturating_sub(1).clamp(1, MAX_THREADS) {
            let (key, queue, signed) = (Arc::clone(&key), Arc::clone(&queue), signed.clone());
            std::thread::Builder::new().name("signer".into()).spawn(move || {
                crate::userspace::give_way();
                super::warm_up();
                while let Some(job) = queue.next() {
                    let signature = key.sign(job.scheme, &job.octets).ok();
                    if signed.send((job.ike, signature)).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(signers)
    }

    /// Has something signed.
    pub(crate) fn sign(&self, job: ike::Sign) {
        let mut jobs = self.queue.lock();
        if job.stranger {
            jobs.strangers.push_back(job);
        } else {
            jobs.ours.push_back(job);
        }
        drop(jobs);
        self.queue.more.notify_one();
    }
}

impl Drop for Signers {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.more.notify_all();
    }
}

impl Queue {
    /// The next job, or the end.
    fn next(&self) -> Option<ike::Sign> {
        let mut jobs = self.lock();
        loop {
            if jobs.ended {
                return None;
            }
            if let Some(job) = jobs.ours.pop_front().or_else(|| jobs.strangers.pop_front()) {
                return Some(job);
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Consistent between any two statements.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More signatures at once than this are a flood of strangers, who can wait.
const MAX_THREADS: usize = 8;
