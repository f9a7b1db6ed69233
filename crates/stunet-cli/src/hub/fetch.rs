//! One file, from an address to a partial file: asked for again where a connection breaks.

use std::io::Read;
use std::time::Duration;

use anyhow::{anyhow, bail};

use super::partial::Partial;
use super::web::{Failure, Stated, Web};
use crate::failure::Interrupted;
use crate::interrupt;

/// How often a file is asked for again after nothing has come.
const TRIES: u32 = 5;
/// The first wait before that; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Bytes between two looks at the user's wishes.
const PIECE: usize = 256 << 10;

/// Asks what a file is; again where the other end is busy.
///
/// # Errors
///
/// Where it refuses, stays busy, or on Ctrl-C.
pub fn ask(web: &Web, address: &str) -> anyhow::Result<Stated> {
    let mut tried = 0;
    loop {
        match web.ask(address) {
            Ok(stated) => return Ok(stated),
            Err(Failure::Broken(error)) => wait(&mut tried, error)?,
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::FromTheStart) => bail!("expected an answer about a file, found none"),
        }
    }
}

/// Fetches what is missing of a file. `heard` hears how many bytes there are.
///
/// # Errors
///
/// Where the other end refuses or nothing comes any more, the disk is full, or on Ctrl-C: what has come
/// is kept then.
pub fn fetch(
    web: &Web,
    address: &str,
    (stated, partial): (&Stated, &mut Partial),
    heard: &mut dyn FnMut(u64),
) -> anyhow::Result<()> {
    let (mut tried, mut stated) = (0, stated.clone());
    if stated.bytes.is_some_and(|bytes| partial.bytes() > bytes) {
        partial.restart()?;
    }
    loop {
        if stated.bytes == Some(partial.bytes()) {
            return Ok(());
        }
        let before = partial.bytes();
        let broken = match once(web, (&stated, partial), heard)? {
            None => return Ok(()),
            Some(error) => error,
        };
        if partial.bytes() > before {
            tried = 0;
        }
        wait(&mut tried, broken)?;
        // Addresses of bytes are good for some time only.
        let again = ask(web, address)?;
        if (&again.version, again.bytes) != (&stated.version, stated.bytes) {
            bail!("the file has changed while it was fetched; the same command begins again");
        }
        stated = again;
    }
}

/// One connection; why it ended, where it was too early.
fn once(
    web: &Web,
    (stated, partial): (&Stated, &mut Partial),
    heard: &mut dyn FnMut(u64),
) -> anyhow::Result<Option<anyhow::Error>> {
    let mut coming = match web.bytes(stated, partial.bytes()) {
        Ok(coming) => coming,
        Err(Failure::Broken(error)) => return Ok(Some(error)),
        Err(Failure::Refused(error)) => return Err(error),
        Err(Failure::FromTheStart) => {
            partial.restart()?;
            return Ok(Some(anyhow!("the other end has fewer bytes than were here")));
        }
    };
    if coming.from != partial.bytes() {
        partial.restart()?;
        if coming.from != 0 {
            return Ok(Some(anyhow!("the other end begins at another byte than was asked for")));
        }
    }
    let mut piece = vec![0; PIECE];
    loop {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        let found = match coming.reader.read(&mut piece) {
            Ok(found) => found,
            Err(error) => return Ok(Some(anyhow!("the connection broke off: {error}"))),
        };
        // One byte too many is enough to know that it is another file.
        let room = stated.bytes.map_or(u64::MAX, |bytes| bytes - partial.bytes() + 1);
        partial.add(&piece[..found.min(usize::try_from(room).unwrap_or(usize::MAX))])?;
        heard(partial.bytes());
        match stated.bytes {
            Some(bytes) if partial.bytes() > bytes => return Ok(None),
            Some(bytes) if found == 0 && partial.bytes() < bytes => {
                return Ok(Some(anyhow!("the connection broke off")));
            }
            _ if found == 0 => return Ok(None),
            _ => {}
        }
    }
}

fn wait(tried: &mut u32, error: anyhow::Error) -> anyhow::Result<()> {
    if *tried == TRIES {
        return Err(error);
    }
    let until = std::time::Instant::now() + FIRST_WAIT * 2u32.pow(*tried);
    *tried += 1;
    while std::time::Instant::now() < until {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
