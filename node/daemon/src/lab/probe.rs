//! What is sent to a destination, and what came of it as the sender sees it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::host::Host;
use super::traffic::{self, Echo, Pinger, Transfer};

/// How much traffic a destination gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dose {
    /// Echo requests after the first.
    pub(crate) echoes: u16,
    /// Octets of the TCP transfer, each way.
    pub(crate) octets: usize,
    /// How long the first packet may take to be answered.
    pub(crate) patience: Duration,
}

/// What the sender saw.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The very first packet, sent once.
    pub(crate) first: Echo,
    /// Those after it.
    pub(crate) later: Vec<Echo>,
    /// The TCP transfer.
    pub(crate) transfer: io::Result<Transfer>,
}

/// Sends to both addresses of a destination at once.
pub(crate) fn send(
    from: &Host,
    to: &Host,
    plaintext: &[u8],
    dose: Dose,
) -> io::Result<Vec<(IpAddr, Outcome)>> {
    let jobs = to.site.addresses().map(|address| {
        let plaintext = plaintext.to_owned();
        Ok::<_, io::Error>((address, from.start_job(move || send_to(address, &plaintext, dose))?))
    });
    jobs.into_iter()
        .map(|job| {
            let (address, job) = job?;
            let outcome = job.join().map_err(|_| io::Error::other("a sender has panicked"))??;
            Ok((address, outcome))
        })
        .collect()
}

fn send_to(to: IpAddr, plaintext: &[u8], dose: Dose) -> io::Result<Outcome> {
    let pinger = Pinger::new(to, IDENTIFIER)?;
    let first = pinger.ping(0, plaintext, dose.patience)?;
    // Where the first was not answered, the others need not be waited for as long.
    let patience = if first.answered.is_some() { dose.patience } else { dose.patience / 4 };
    let later = (1..=dose.echoes)
        .map(|sequence| pinger.ping(sequence, plaintext, patience))
        .collect::<io::Result<_>>()?;
    let transfer = traffic::transfer(to, dose.octets, plaintext, patience);
    Ok(Outcome { first, later, transfer })
}

/// Only one sender at a time speaks to an address.
const IDENTIFIER: u16 = 0x6f65;
