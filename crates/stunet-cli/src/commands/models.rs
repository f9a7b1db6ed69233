//! `stunet models`: which published weights are here, where, and whether they are whole.

use serde::Serialize;

use crate::args::{ModelsArgs, Size};
use crate::failure::Told;
use crate::hub::{Cache, HubSettings, REPOSITORY, Stored, sha256_of};
use crate::interrupt;
use crate::output;
use crate::progress::ByteBar;

/// What is known of one name.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    file: String,
    /// None where it is not here.
    path: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
    digest: Option<Digest>,
}

/// How the bytes compare with the checksum that they were stored by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Digest {
    Ok,
    Wrong,
    NotChecked,
    NotKnown,
}

/// Prints a row for every published size.
pub fn run(args: &ModelsArgs) -> anyhow::Result<()> {
    interrupt::watch(args.json, "part")?;
    let cache = Cache::of(&HubSettings::read()?, REPOSITORY);
    let mut rows = Vec::new();
    for size in Size::ALL {
        rows.push(row(args, &cache, size)?);
    }
    if args.json {
        output::json(&rows)?;
    } else {
        print(&rows, &cache)?;
    }
    let wrong = rows.iter().filter(|row| row.digest == Some(Digest::Wrong));
    let wrong: Vec<_> = wrong.collect();
    for row in &wrong {
        output::complain(&format!(
            "{}: the bytes are not those of its SHA-256; remove it, and download it again: {}",
            row.name,
            row.path.as_deref().unwrap_or_default()
        ));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Told.into()) }
}

fn row(args: &ModelsArgs, cache: &Cache, size: Size) -> anyhow::Result<Row> {
    let (name, file) = (size.name(), size.file());
    let Some(stored) = cache.find(&file, None) else {
        let (path, bytes, sha256, digest) = Default::default();
        return Ok(Row { name, file, path, bytes, sha256, digest });
    };
    let digest = digest(args, &stored, &file)?;
    Ok(Row {
        name,
        path: Some(stored.path.to_string_lossy().into_owned()),
        bytes: Some(stored.bytes),
        sha256: stored.sha256,
        digest: Some(digest),
        file,
    })
}

fn digest(args: &ModelsArgs, stored: &Stored, file: &str) -> anyhow::Result<Digest> {
    let Some(expected) = &stored.sha256 else { return Ok(Digest::NotKnown) };
    if args.quick {
        return Ok(Digest::NotChecked);
    }
    let bar = ByteBar::new(format!("checking {file}"), Some(stored.bytes), args.json);
    let found = sha256_of(&stored.path, &mut |done| bar.at(done))?;
    Ok(if found == *expected { Digest::Ok } else { Digest::Wrong })
}

fn print(rows: &[Row], cache: &Cache) -> anyhow::Result<()> {
    for row in rows {
        let name = row.name;
        output::line(&match (&row.path, row.bytes, row.digest) {
            (Some(path), Some(bytes), Some(digest)) => {
                let words = match digest {
                    Digest::Ok => "SHA-256 ok",
                    Digest::Wrong => "SHA-256 wrong",
                    Digest::NotChecked => "not checked",
                    Digest::NotKnown => "SHA-256 not known",
                };
                format!("{name:<8}{:>10}  {words:<18} {path}", output::bytes(bytes))
            }
            _ => format!("{name:<8}{:>10}  stunet download {name}", "not here"),
        })?;
    }
    let (count, bytes) = cache.unfinished();
    if count > 0 {
        let bytes = output::bytes(bytes);
        output::line(&format!(
            "{count} unfinished download(s) of {bytes}, which the same command goes on with: {}",
            cache.blob("").display()
        ))?;
    }
    Ok(())
}
