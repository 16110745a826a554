//! Standard output of the client commands, whose reader may go before it has read all (`| head`).

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};

/// The exit code of a command whose reader has gone: what a shell makes of a program that SIGPIPE ended, as it ends a
/// Consul.
pub(crate) const READER_GONE: u8 = 141;

/// Notes in a cell that the reader has gone. The command fails by it like by any other error and cleans up; only then is
/// it known that there is nothing to tell.
pub(crate) struct Out<'a, W> {
    inner: W,
    reader_gone: &'a Cell<bool>,
}

impl<'a, W: Write> Out<'a, W> {
    pub(crate) fn new(inner: W, reader_gone: &'a Cell<bool>) -> Self {
        Self { inner, reader_gone }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::BrokenPipe
        {
            self.reader_gone.set(true);
        }
        result
    }
}

impl<W: Write> Write for Out<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_a_reader_that_has_gone() {
        for (kind, gone) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
            let reader_gone = Cell::new(false);

            let written = Out::new(Fails(kind), &reader_gone).write_all(b"x");

            assert_eq!(written.map_err(|error| error.kind()), Err(kind));
            assert_eq!(reader_gone.get(), gone);
        }
    }
}
