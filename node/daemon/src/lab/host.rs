//! A host: a thread in a network namespace of its own, which does there what it is told.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use super::netns;
use super::topology::Site;

/// A namespace with a thread in it. Sockets, threads and processes started by its jobs belong to
/// the namespace; those processes die when the host is dropped.
pub(crate) struct Host {
    /// Its name and addresses.
    pub(crate) site: Site,
    /// Its network namespace.
    pub(crate) namespace: OwnedFd,
    /// The thread's id: `/proc/<id>/ns/net` is the namespace.
    pub(crate) thread_id: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Host {
    /// Makes a namespace and a thread in it.
    pub(crate) fn start(site: Site) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(site.name.clone()).spawn(move || {
            let namespace = netns::own_network();
            let failed = namespace.is_err();
            if tell.send(namespace.map(|fd| (fd, netns::thread_id()))).is_err() || failed {
                return;
            }
            for job in todo {
                job();
            }
        })?;
        let (namespace, thread_id) = told.recv().map_err(|_| gone(&site.name))??;
        Ok(Self { site, namespace, thread_id, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does a job on the host's thread and waits for its result. A panic of the job ends the
    /// host.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // The asker may be gone; nobody else wants the result.
            let _ = tell.send(job());
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| gone(&self.site.name))?;
        jobs.send(job).map_err(|_| gone(&self.site.name))?;
        told.recv().map_err(|_| gone(&self.site.name))
    }

    /// Does a job on a new thread in the host's namespace.
    pub(crate) fn start_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<T>> {
        let name = self.site.name.clone();
        self.run(move || thread::Builder::new().name(name).spawn(job))?
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; both are told elsewhere.
            let _ = thread.join();
        }
    }
}

fn gone(name: &str) -> io::Error {
    io::Error::other(format!("the thread of host {name} has ended"))
}
