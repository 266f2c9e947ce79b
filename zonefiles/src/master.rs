//! Master files (RFC 1035 §5, RFC 2308 §4, RFC 3597): read entry by entry, so that a file of any
//! size fits.
//!
//! `$ORIGIN`, `$TTL`, `$INCLUDE` and BIND's `$GENERATE` are followed. An error is reported with its
//! place, and reading goes on behind it.

mod generate;
mod lexer;

use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

use generate::Generate;
use lexer::{Fault, Lexer, Line};

use crate::name::{Name, NameError};
use crate::rdata::{self, RdataError, Token, parse_period};
use crate::record::Record;
use crate::rtype::Rtype;

/// A place in a file; lines and columns count from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The file's name.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The octet in the line.
    pub column: u32,
}

/// A record and where it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// The record.
    pub record: Record,
    /// Its first word.
    pub position: Position,
}

/// Why an entry was skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MasterError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// A physical line over half a mebibyte.
    #[error("line of more than 524288 octets")]
    LineTooLong,
    /// Parentheses that span too much.
    #[error("entry of more than a mebibyte: is a closing parenthesis missing?")]
    EntryTooLong,
    /// `(` and no `)`.
    #[error("parenthesis is never closed")]
    OpenParenthesis,
    /// `)` without `(`.
    #[error("closing parenthesis without an opening one")]
    CloseParenthesis,
    /// `"` and no second one on the line.
    #[error("quotation mark is never closed")]
    OpenQuote,
    /// A malformed owner, `$ORIGIN` or `$INCLUDE` origin.
    #[error("owner: {0}")]
    Owner(NameError),
    /// An indented line with nothing above.
    #[error("indented line without an owner above it")]
    NoOwner,
    /// Neither `$TTL` nor a TTL nor an SOA so far.
    #[error("no TTL: neither here nor in $TTL nor above")]
    NoTtl,
    /// A TTL over 2³¹−1, which RFC 2181 §8 reads as zero.
    #[error("TTL over 2147483647")]
    Ttl,
    /// CH, HS.
    #[error("class other than IN")]
    Class,
    /// The line ends before a type.
    #[error("the line ends where a record type was expected")]
    NoType,
    /// Not a mnemonic that is known.
    #[error("expected a record type, TTL or class")]
    Type,
    /// OPT, ANY, TSIG.
    #[error("this type cannot be stored in a zone")]
    Meta,
    /// What follows the type.
    #[error("{rtype}: {error}")]
    Rdata {
        /// The type.
        rtype: Rtype,
        /// What is wrong with its RDATA.
        error: RdataError,
    },
    /// `$FOO`.
    #[error("unknown directive: expected $ORIGIN, $TTL, $INCLUDE or $GENERATE")]
    Directive,
    /// A directive without or with a bad argument.
    #[error("{0}")]
    Argument(&'static str),
    /// Files that include each other.
    #[error("$INCLUDE nested more than 16 deep")]
    IncludeDepth,
    /// The included file cannot be opened.
    #[error("$INCLUDE: cannot be opened: {0}")]
    Include(io::ErrorKind),
    /// A malformed `$GENERATE`.
    #[error("$GENERATE: {0}")]
    Generate(&'static str),
}

/// An error and its place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{position}: {error}")]
pub struct Problem {
    /// Where.
    pub position: Position,
    /// What.
    pub error: MasterError,
}

/// Opens included files: the reader itself knows no file system.
pub type Opener = Box<dyn FnMut(&str) -> io::Result<Box<dyn BufRead>>>;

/// Reads master files, record by record.
pub struct Reader {
    files: Vec<Source>,
    opener: Opener,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
    soa_minimum: Option<u32>,
    generate: Option<Generate>,
}

struct Source {
    name: Arc<str>,
    lexer: Lexer,
    origin: Option<Name>,
    owner: Option<Name>,
}

impl Reader {
    /// Reads `input`, which messages call `name`. Without `origin` the file must say `$ORIGIN`
    /// before its first relative name.
    #[must_use]
    pub fn new(name: &str, input: Box<dyn BufRead>, origin: Option<Name>, opener: Opener) -> Self {
        let source = Source { name: name.into(), lexer: Lexer::new(input), origin, owner: None };
        Self {
            files: vec![source],
            opener,
            default_ttl: None,
            last_ttl: None,
            soa_minimum: None,
            generate: None,
        }
    }

    /// Reads text that includes nothing.
    #[must_use]
    pub fn of_text(text: &str, origin: Option<Name>) -> Self {
        let input = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        let none = |_: &str| Err(io::ErrorKind::Unsupported.into());
        Self::new("text", input, origin, Box::new(none))
    }

    /// The `$ORIGIN` in force.
    #[must_use]
    pub fn origin(&self) -> Option<&Name> {
        self.files.last().and_then(|source| source.origin.as_ref())
    }

    fn advance(&mut self) -> Result<Option<Located>, Problem> {
        loop {
            if let Some(generate) = &mut self.generate {
                match generate.next_tokens() {
                    Some(Ok(tokens)) => return self.record(tokens, false).map(Some),
                    Some(Err((_, error))) => return Err(self.problem_here(error)),
                    None => self.generate = None,
                }
            }
            let Some(source) = self.files.last_mut() else { return Ok(None) };
            let line = match source.lexer.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.files.pop();
                    continue;
                }
                Err(Fault { line, column, error }) => {
                    let position = Position { file: Arc::clone(&source.name), line, column };
                    if matches!(error, MasterError::Unreadable(_)) {
                        self.files.pop();
                    }
                    return Err(Problem { position, error });
                }
            };
            let is_directive = !line.indented
                && line.tokens.first().is_some_and(|t| !t.quoted && t.text.starts_with(b"$"));
            if is_directive {
                self.directive(line)?;
            } else {
                return self.record(line.tokens, line.indented).map(Some);
            }
        }
    }

    fn record(&mut self, tokens: Vec<Token>, indented: bool) -> Result<Located, Problem> {
        let Some(source) = self.files.last_mut() else {
            return Err(self.problem_here(MasterError::NoOwner));
        };
        let file = Arc::clone(&source.name);
        let position = |token: Option<&Token>| Position {
            file: Arc::clone(&file),
            line: token.map_or(0, |t| t.line),
            column: token.map_or(0, |t| t.column),
        };
        let fail = |token: Option<&Token>, error| Problem { position: position(token), error };
        let first = tokens.first();
        let (owner, rest) = match tokens.split_first() {
            Some((token, rest)) if !indented => {
                let owner = Name::parse(&token.text, source.origin.as_ref())
                    .map_err(|e| fail(Some(token), MasterError::Owner(e)))?;
                source.owner = Some(owner.clone());
                (owner, rest)
            }
            _ => {
                let owner = source.owner.clone();
                (owner.ok_or_else(|| fail(first, MasterError::NoOwner))?, tokens.as_slice())
            }
        };
        let head =
            Head::read(rest).map_err(|(at, e)| fail(rest.get(at).or_else(|| tokens.last()), e))?;
        let data = rest.get(head.used..).unwrap_or_default();
        let rtype = head.rtype;
        let rdata = rdata::parse(rtype, data, source.origin.as_ref()).map_err(|(at, error)| {
            fail(data.get(at).or_else(|| tokens.last()), MasterError::Rdata { rtype, error })
        })?;
        let mut record = Record::new(owner, 0, rtype, rdata);
        if let Some(soa) = record.as_soa() {
            self.soa_minimum = Some(soa.minimum);
        }
        self.last_ttl = head.ttl.or(self.last_ttl);
        let ttl = head.ttl.or(self.default_ttl).or(self.last_ttl).or(self.soa_minimum);
        record.ttl = ttl.ok_or_else(|| fail(first, MasterError::NoTtl))?;
        Ok(Located { record, position: position(first) })
    }

    fn directive(&mut self, line: Line) -> Result<(), Problem> {
        let mut tokens = line.tokens;
        if tokens.is_empty() {
            return Ok(());
        }
        let directive = tokens.remove(0);
        let Some(source) = self.files.last_mut() else { return Ok(()) };
        let name = Arc::clone(&source.name);
        let fail = |token: Option<&Token>, error| {
            let token = token.unwrap_or(&directive);
            let position =
                Position { file: Arc::clone(&name), line: token.line, column: token.column };
            Problem { position, error }
        };
        let argument = tokens.first();
        match directive.text.to_ascii_uppercase().as_slice() {
            b"$ORIGIN" => {
                let missing = MasterError::Argument("$ORIGIN: expected a name");
                let token = argument.ok_or_else(|| fail(None, missing))?;
                let origin = Name::parse(&token.text, source.origin.as_ref())
                    .map_err(|e| fail(Some(token), MasterError::Owner(e)))?;
                source.origin = Some(origin);
            }
            b"$TTL" => {
                let wanted =
                    MasterError::Argument("$TTL: expected seconds, or a period such as 1h");
                let ttl = argument.and_then(|t| parse_period(&t.text));
                self.default_ttl = Some(ttl.ok_or_else(|| fail(argument, wanted))?);
                if self.default_ttl > Some(MAX_TTL) {
                    return Err(fail(argument, MasterError::Ttl));
                }
            }
            b"$INCLUDE" => {
                let missing = MasterError::Argument("$INCLUDE: expected a file name");
                let file = argument.ok_or_else(|| fail(None, missing))?;
                let origin = match tokens.get(1) {
                    Some(token) => Some(
                        Name::parse(&token.text, source.origin.as_ref())
                            .map_err(|e| fail(Some(token), MasterError::Owner(e)))?,
                    ),
                    None => source.origin.clone(),
                };
                let owner = source.owner.clone();
                if self.files.len() > MAX_INCLUDE_DEPTH {
                    return Err(fail(argument, MasterError::IncludeDepth));
                }
                let path = rdata::plain(&file.text).ok().and_then(|p| String::from_utf8(p).ok());
                let path = path.ok_or_else(|| fail(argument, missing))?;
                let input = (self.opener)(&path)
                    .map_err(|e| fail(argument, MasterError::Include(e.kind())))?;
                let lexer = Lexer::new(input);
                self.files.push(Source { name: path.into(), lexer, origin, owner });
            }
            b"$GENERATE" => {
                let missing = MasterError::Generate("expected a range, an owner, a type and data");
                let template: Vec<Token> = tokens.get(1..).unwrap_or_default().to_vec();
                let range = argument.filter(|_| template.len() >= 3);
                let range = range.ok_or_else(|| fail(None, missing))?;
                let generate = Generate::new(range, template).map_err(|e| fail(argument, e))?;
                self.generate = Some(generate);
            }
            _ => return Err(fail(None, MasterError::Directive)),
        }
        Ok(())
    }

    fn problem_here(&self, error: MasterError) -> Problem {
        let (file, line) = match self.files.last() {
            Some(source) => (Arc::clone(&source.name), source.lexer.line()),
            None => ("".into(), 0),
        };
        Problem { position: Position { file, line, column: 1 }, error }
    }
}

impl Iterator for Reader {
    type Item = Result<Located, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// TTL, class and type, the first two in either order.
struct Head {
    ttl: Option<u32>,
    rtype: Rtype,
    used: usize,
}

impl Head {
    fn read(tokens: &[Token]) -> Result<Self, (usize, MasterError)> {
        let (mut ttl, mut class) = (None, false);
        for (at, token) in tokens.iter().enumerate() {
            let text = std::str::from_utf8(&token.text).unwrap_or("");
            if ttl.is_none() && text.starts_with(|c: char| c.is_ascii_digit()) {
                let seconds = parse_period(&token.text).ok_or((at, MasterError::Type))?;
                if seconds > MAX_TTL {
                    return Err((at, MasterError::Ttl));
                }
                ttl = Some(seconds);
            } else if !class && ["IN", "CLASS1"].iter().any(|c| text.eq_ignore_ascii_case(c)) {
                class = true;
            } else if ["CH", "HS", "CS"].iter().any(|c| text.eq_ignore_ascii_case(c)) {
                return Err((at, MasterError::Class));
            } else {
                let rtype = Rtype::from_mnemonic(text).ok_or((at, MasterError::Type))?;
                if !rtype.is_data() {
                    return Err((at, MasterError::Meta));
                }
                return Ok(Self { ttl, rtype, used: at + 1 });
            }
        }
        Err((tokens.len(), MasterError::NoType))
    }
}

/// RFC 2181 §8.
const MAX_TTL: u32 = 0x7fff_ffff;
/// Deeper is a loop.
const MAX_INCLUDE_DEPTH: usize = 16;

#[cfg(test)]
mod tests;
