//! The program of a command: where it is, and why it could not be started.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// The program was not found.
    #[error("{0}: command not found; check its spelling and PATH")]
    NotFound(String),
    /// The program exists, but the interpreter that its first line names does not.
    #[error(
        "{program}: its interpreter {interpreter} was not found; correct the first line, or name another interpreter"
    )]
    NoInterpreter {
        /// As given by the user.
        program: String,
        /// As written in the first line. A carriage return is shown as `\\r`.
        interpreter: String,
    },
    /// The path is a directory.
    #[error("{0} is a directory; name a program")]
    Directory(String),
    /// The file is not executable.
    #[error("{0}: permission denied; make it executable (chmod +x), or name its interpreter")]
    NotExecutable(String),
    /// Any other error of the system.
    #[error("{0} could not be started: {1}")]
    Spawn(String, io::Error),
}

impl ChildError {
    /// The exit code that a shell returns for this error.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) | Self::NoInterpreter { .. } => 127,
            Self::Directory(_) | Self::NotExecutable(_) | Self::Spawn(..) => 126,
        }
    }
}

/// A program as the user wrote it, and its file.
pub(super) struct Program {
    name: String,
    /// `None` if PATH has no such program.
    file: Option<PathBuf>,
}

impl Program {
    /// Looks the program up in PATH, unless its name is a path.
    pub(super) fn new(name: &OsStr) -> Self {
        let path = Path::new(name);
        let is_executable = |file: &PathBuf| {
            fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        let file = if name.as_encoded_bytes().contains(&b'/') {
            Some(path.to_owned())
        } else {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).map(|folder| folder.join(path)).find(is_executable)
        };
        let shown = if name.is_empty() { "''".to_owned() } else { name.to_string_lossy().into_owned() };
        Self { name: shown, file }
    }

    /// Returns the file if it is a script without `#!`, which the system refused to execute with `error`.
    pub(super) fn script_after(&self, error: &io::Error) -> Option<&Path> {
        let is_refused = error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error());
        let file = self.file.as_deref().filter(|_| is_refused)?;
        // A shell tells programs from scripts in the same way.
        (!beginning(file)?.contains(&0)).then_some(file)
    }

    /// Explains why the program could not be started.
    pub(super) fn error(self, error: io::Error) -> ChildError {
        let Self { name, file } = self;
        match (error.kind(), file) {
            (ErrorKind::NotFound, file) => match file.as_deref().and_then(interpreter) {
                Some(interpreter) => ChildError::NoInterpreter { program: name, interpreter },
                None => ChildError::NotFound(name),
            },
            (ErrorKind::PermissionDenied, Some(file)) if file.is_dir() => ChildError::Directory(name),
            (ErrorKind::PermissionDenied, _) => ChildError::NotExecutable(name),
            _ => ChildError::Spawn(name, error),
        }
    }
}

/// The interpreter in the first line of a script.
fn interpreter(file: &Path) -> Option<String> {
    let beginning = beginning(file)?;
    let line = beginning.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let word = line.trim_matches([' ', '\t']).split([' ', '\t']).next()?;
    Some(word.escape_default().to_string())
}

/// The first bytes of a file, enough for its first line.
fn beginning(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MAX_FIRST_LINE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

const MAX_FIRST_LINE_BYTES: u64 = 256;
