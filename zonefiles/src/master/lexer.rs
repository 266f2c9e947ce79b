//! A master file as entries of words (RFC 1035 §5.1): parentheses, quotation marks, comments.

use std::io::{self, BufRead};

use super::MasterError;
use crate::rdata::Token;

/// One logical line: what stands between line ends outside of parentheses.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) tokens: Vec<Token>,
    /// It starts with white space, so it belongs to the owner above.
    pub(super) indented: bool,
}

/// A place in a file and what is wrong there.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) error: MasterError,
}

pub(super) struct Lexer {
    input: Box<dyn BufRead>,
    /// The physical line in hand.
    text: Vec<u8>,
    line: u32,
}

impl Lexer {
    pub(super) fn new(input: Box<dyn BufRead>) -> Self {
        Self { input, text: Vec::new(), line: 0 }
    }

    /// The number of the line read last.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// The next logical line that is not empty. After a fault the next call goes on behind it.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, Fault> {
        loop {
            let mut line = Line::default();
            let mut scan = Scan { depth: 0, opened: (0, 0), size: 0, fault: None };
            loop {
                if !self.read_physical()? {
                    if scan.depth > 0 {
                        let (line, column) = scan.opened;
                        return Err(Fault { line, column, error: MasterError::OpenParenthesis });
                    }
                    break;
                }
                if scan.size == 0 {
                    line.indented = matches!(self.text.first(), Some(b' ' | b'\t'));
                }
                scan.physical_line(&self.text, self.line, &mut line.tokens);
                if scan.depth == 0 {
                    break;
                }
            }
            if let Some(fault) = scan.fault {
                return Err(fault);
            }
            if !line.tokens.is_empty() {
                return Ok(Some(line));
            }
            if scan.size == 0 {
                return Ok(None);
            }
        }
    }

    /// False at the end of the file.
    fn read_physical(&mut self) -> Result<bool, Fault> {
        self.text.clear();
        self.line = self.line.saturating_add(1);
        let fault = |error| Fault { line: self.line, column: 1, error };
        let mut limited = io::Read::take(&mut self.input, MAX_LINE);
        let read = limited.read_until(b'\n', &mut self.text);
        let read = read.map_err(|e| fault(MasterError::Unreadable(e.kind())))?;
        if self.text.last() != Some(&b'\n') && u64::try_from(read).unwrap_or(0) == MAX_LINE {
            // Skip to its end, so that the next call goes on behind it.
            let kind = self.input.skip_until(b'\n').err().map(|e| e.kind());
            return Err(fault(kind.map_or(MasterError::LineTooLong, MasterError::Unreadable)));
        }
        Ok(read > 0)
    }
}

struct Scan {
    depth: u32,
    opened: (u32, u32),
    size: usize,
    /// The first one; the rest of the entry is skipped as well as it can be.
    fault: Option<Fault>,
}

impl Scan {
    fn physical_line(&mut self, text: &[u8], line: u32, tokens: &mut Vec<Token>) {
        self.size = self.size.saturating_add(text.len());
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let column = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
            let start = at;
            at += 1;
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b';' => break,
                b'(' => {
                    if self.depth == 0 {
                        self.opened = (line, column);
                    }
                    self.depth += 1;
                }
                b')' if self.depth == 0 => {
                    self.fail(line, column, MasterError::CloseParenthesis);
                }
                b')' => self.depth -= 1,
                b'"' => {
                    at = self.end_of_quoted(text, at, line, column);
                    let inner = text.get(start + 1..at.saturating_sub(1)).unwrap_or_default();
                    self.push(tokens, inner, true, line, column);
                }
                _ => {
                    at = end_of_word(text, start);
                    self.push(tokens, text.get(start..at).unwrap_or_default(), false, line, column);
                }
            }
        }
        if self.size > MAX_ENTRY {
            self.fail(line, 1, MasterError::EntryTooLong);
            self.depth = 0;
            tokens.clear();
        }
    }

    fn push(&self, tokens: &mut Vec<Token>, text: &[u8], quoted: bool, line: u32, column: u32) {
        if self.fault.is_none() {
            tokens.push(Token { text: text.to_vec(), quoted, line, column });
        }
    }

    /// The index behind the closing quotation mark.
    fn end_of_quoted(&mut self, text: &[u8], from: usize, line: u32, column: u32) -> usize {
        let mut at = from;
        while let Some(&byte) = text.get(at) {
            at += 1;
            match byte {
                b'"' => return at,
                b'\n' => break,
                b'\\' => at += 1,
                _ => {}
            }
        }
        self.fail(line, column, MasterError::OpenQuote);
        text.len()
    }

    fn fail(&mut self, line: u32, column: u32, error: MasterError) {
        self.fault.get_or_insert(Fault { line, column, error });
    }
}

fn end_of_word(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' => break,
            b'\\' if text.get(at + 1).is_some_and(|&b| b != b'\n') => at += 2,
            _ => at += 1,
        }
    }
    at.min(text.len())
}

/// RDATA of 65535 octets, every one written `\DDD`, in one string per octet would be more; nobody
/// writes that.
const MAX_LINE: u64 = 512 * 1024;
/// The same for what parentheses span: a lost parenthesis must not read a whole file into memory.
const MAX_ENTRY: usize = 1024 * 1024;
