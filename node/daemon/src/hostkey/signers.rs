//! Signing: the one operation of a handshake that takes as long as all others together. It is done on
//! threads of its own, because the main loop must wait neither for it nor for the processor it takes.
//!
//! A call that comes alone is signed for at once, where it is known to be quick: to wake a thread and
//! to be woken by it costs more than is won when there is nothing else to do.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnskeys::PublicKey;
use tokio::sync::mpsc::UnboundedSender;

use super::HostKey;

/// What became of a job: for whom it was, and the signature if there is one.
pub(crate) type Signed = (ike::IkeId, Option<Vec<u8>>);

/// A few threads and one queue. They end when this is dropped.
pub(crate) struct Signers {
    key: Arc<HostKey>,
    queue: Arc<Queue>,
    /// Until then nothing is signed by who asks, so that it has the most of its time for others.
    busy_until: Option<Instant>,
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
    /// Jobs that wait or are at work.
    unfinished: usize,
    /// What the last two took; nobody knows before.
    costs: [Option<Duration>; 2],
    ended: bool,
}

impl Jobs {
    fn took(&mut self, cost: Duration) {
        self.costs = [Some(cost), self.costs[0]];
    }

    /// What a signature takes. One may have been interrupted: the shorter of the last two knows better.
    fn cost(&self) -> Option<Duration> {
        self.costs.into_iter().flatten().min()
    }
}

impl Signers {
    /// Starts the threads. One processor is left to the main loop and to packets.
    ///
    /// # Errors
    /// If the system has no threads to give.
    pub(crate) fn start(key: HostKey, signed: &UnboundedSender<Signed>) -> std::io::Result<Self> {
        let key = Arc::new(key);
        let queue = Arc::new(Queue { jobs: Mutex::default(), more: Condvar::new() });
        let signers = Self { key: Arc::clone(&key), queue: Arc::clone(&queue), busy_until: None };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors.saturating_sub(1).clamp(1, MAX_THREADS) {
            let (key, queue, signed) = (Arc::clone(&key), Arc::clone(&queue), signed.clone());
            std::thread::Builder::new().name("signer".into()).spawn(move || {
                crate::userspace::give_way();
                super::warm_up();
                while let Some(job) = queue.next() {
                    let began = Instant::now();
                    let signature = key.sign(job.scheme, &job.octets).ok();
                    queue.done(began.elapsed());
                    if signed.send((job.ike, signature)).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(signers)
    }

    /// The public half of what is signed with.
    pub(crate) fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Has something signed: at once if that is quick and nothing else is to be signed, which is then
    /// returned; else by one of the threads.
    pub(crate) fn sign(&mut self, job: ike::Sign) -> Option<Signed> {
        let mut jobs = self.queue.lock();
        let quick = jobs.cost().is_some_and(|cost| cost <= QUICK);
        let now = Instant::now();
        if quick && jobs.unfinished == 0 && self.busy_until.is_none_or(|until| until <= now) {
            drop(jobs);
            let signature = self.key.sign(job.scheme, &job.octets).ok();
            let cost = now.elapsed();
            self.queue.lock().took(cost);
            self.busy_until = Some(now + cost * SHARE);
            return Some((job.ike, signature));
        }
        jobs.unfinished += 1;
        if job.stranger {
            jobs.strangers.push_back(job);
        } else {
            jobs.ours.push_back(job);
        }
        drop(jobs);
        self.queue.more.notify_one();
        None
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

    fn done(&self, cost: Duration) {
        let mut jobs = self.lock();
        jobs.unfinished = jobs.unfinished.saturating_sub(1);
        jobs.took(cost);
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Consistent between any two statements.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More signatures at once than this are a flood of strangers, who can wait.
const MAX_THREADS: usize = 8;
/// The main loop does not stand still for longer: a twentieth of what a request on the control socket
/// may wait. RSA-3072 takes about as long.
const QUICK: Duration = Duration::from_millis(1);
/// Of the main loop's time one part in so many may go into signatures of its own.
const SHARE: u32 = 2;
