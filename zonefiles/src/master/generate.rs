//! `$GENERATE` (BIND): a range of records from one line, made one at a time.

use std::fmt::Write as _;

use super::MasterError;
use crate::rdata::Token;

/// The rest of a `$GENERATE` line.
#[derive(Debug)]
pub(super) struct Generate {
    next: u64,
    stop: u64,
    step: u64,
    template: Vec<Token>,
}

impl Generate {
    /// Reads `start-stop[/step] owner [ttl] [class] type rdata`.
    pub(super) fn new(range: &Token, template: Vec<Token>) -> Result<Self, MasterError> {
        const WHAT: MasterError = MasterError::Generate("expected START-STOP or START-STOP/STEP");
        let text = std::str::from_utf8(&range.text).map_err(|_| WHAT)?;
        let (span, step) = text.split_once('/').unwrap_or((text, "1"));
        let (start, stop) = span.split_once('-').ok_or(WHAT)?;
        let number = |digits: &str| digits.parse::<u32>().map(u64::from).map_err(|_| WHAT);
        let (next, stop, step) = (number(start)?, number(stop)?, number(step)?);
        if next > stop || step == 0 {
            return Err(WHAT);
        }
        Ok(Self { next, stop, step, template })
    }

    /// The next record's words.
    pub(super) fn next_tokens(&mut self) -> Option<Result<Vec<Token>, (usize, MasterError)>> {
        if self.next > self.stop {
            return None;
        }
        let value = self.next;
        self.next += self.step;
        let mut tokens = Vec::with_capacity(self.template.len());
        for (at, token) in self.template.iter().enumerate() {
            match substitute(&token.text, value) {
                Some(text) if text.len() <= MAX_WORD => {
                    tokens.push(Token { text, ..token.clone() })
                }
                _ => {
                    self.next = u64::MAX;
                    let error =
                        MasterError::Generate("expected ${OFFSET,WIDTH,BASE} with base doxXnN");
                    return Some(Err((at, error)));
                }
            }
        }
        Some(Ok(tokens))
    }
}

fn substitute(template: &[u8], value: u64) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(template.len() + 8);
    let mut rest = template;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [escaped, tail @ ..]) => {
                text.extend_from_slice(&[b'\\', *escaped]);
                rest = tail;
            }
            (b'$', [b'$', tail @ ..]) => {
                text.push(b'$');
                rest = tail;
            }
            (b'$', [b'{', tail @ ..]) => {
                let end = tail.iter().position(|&b| b == b'}')?;
                let (inside, tail) = tail.split_at_checked(end)?;
                text.extend_from_slice(
                    modified(std::str::from_utf8(inside).ok()?, value)?.as_bytes(),
                );
                rest = tail.get(1..)?;
            }
            (b'$', _) => text.extend_from_slice(value.to_string().as_bytes()),
            _ => text.push(byte),
        }
    }
    Some(text)
}

/// `offset[,width[,base]]`.
fn modified(inside: &str, value: u64) -> Option<String> {
    let mut parts = inside.split(',');
    let offset: i64 = parts.next()?.parse().ok()?;
    let width: usize = parts.next().map_or(Some(0), |w| w.parse().ok())?;
    let base = parts.next().unwrap_or("d");
    if parts.next().is_some() || width > MAX_WIDTH {
        return None;
    }
    let value = u64::try_from(i64::try_from(value).ok()?.checked_add(offset)?).ok()?;
    let mut text = String::new();
    match base {
        "d" => write!(text, "{value:0width$}"),
        "o" => write!(text, "{value:0width$o}"),
        "x" => write!(text, "{value:0width$x}"),
        "X" => write!(text, "{value:0width$X}"),
        // Nibbles, the lowest first, with dots: the width counts the dots too.
        "n" | "N" => {
            let digits = format!("{value:0width$x}", width = width.div_ceil(2).max(1));
            let digits: Vec<String> = digits.chars().rev().map(String::from).collect();
            text = digits.join(".");
            if base == "N" {
                text.make_ascii_uppercase();
            }
            Ok(())
        }
        _ => return None,
    }
    .ok()?;
    Some(text)
}

/// A name has 255 octets at most.
const MAX_WIDTH: usize = 255;
/// As long as a word of a file can be.
const MAX_WORD: usize = 512 * 1024;
