//! Which part of the cases this process predicts: from the options, or from a scheduler's variables.

use anyhow::{Context, bail, ensure};
use serde::Serialize;

/// A part of the sorted cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub id: usize,
    /// How many there are.
    pub of: usize,
    /// The scheduler's variables that say so, `NAME=VALUE`; none where the arguments do.
    pub from: Vec<String>,
}

/// A part, as reports tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Divided {
    /// From 0.
    pub id: usize,
    /// How many parts there are.
    pub of: usize,
    /// Cases of all parts.
    pub cases_of_all: usize,
}

impl Part {
    /// The cases of this part.
    pub fn take<T>(&self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.id).step_by(self.of).collect()
    }

    /// One line about the part, if a scheduler's variables and not options chose it.
    pub fn line(&self, taken: usize, total: usize) -> Option<String> {
        let from = (!self.from.is_empty()).then(|| self.from.join(", "))?;
        let (number, of) = (self.id + 1, self.of);
        Some(format!("part {number} of {of} ({from}): {taken} of {total} cases"))
    }
}

/// The variables of a scheduler.
#[derive(Clone, Debug, Default)]
pub struct Environment(Vec<(&'static str, String)>);

const SLURM_ID: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";
const SLURM_FIRST: &str = "SLURM_ARRAY_TASK_MIN";
const SLURM_STEP: &str = "SLURM_ARRAY_TASK_STEP";
const KUBERNETES_INDEX: &str = "JOB_COMPLETION_INDEX";
/// Kubernetes does not set it; the manifest in `docs/how-to/scale-out.md` does.
const KUBERNETES_COUNT: &str = "JOB_COMPLETIONS";

impl Environment {
    /// The variables this program was started with.
    #[allow(clippy::disallowed_methods, reason = "the one place where the binary reads them")]
    pub fn read() -> Self {
        let names =
            [SLURM_ID, SLURM_COUNT, SLURM_FIRST, SLURM_STEP, KUBERNETES_INDEX, KUBERNETES_COUNT];
        Self(names.into_iter().filter_map(|n| Some((n, std::env::var(n).ok()?))).collect())
    }

    fn number(&self, name: &str) -> anyhow::Result<Option<usize>> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| *known == name) else {
            return Ok(None);
        };
        let number = value.trim().parse();
        number.map(Some).with_context(|| format!("{name}: expected a number, found {value:?}"))
    }

    /// The variables of the scheduler that is listened to, as `NAME=VALUE`.
    fn used(&self) -> Vec<String> {
        let slurm = self.0.iter().any(|(name, _)| *name == SLURM_ID);
        let used = self.0.iter().filter(|(name, _)| name.starts_with("SLURM") == slurm);
        used.map(|(name, value)| format!("{name}={}", value.trim())).collect()
    }

    /// Index and, where it is known, number of the scheduler's tasks.
    fn task(&self) -> anyhow::Result<Option<(usize, Option<usize>)>> {
        if let Some(id) = self.number(SLURM_ID)? {
            let first = self.number(SLURM_FIRST)?.unwrap_or(0);
            let step = self.number(SLURM_STEP)?.unwrap_or(1).max(1);
            ensure!(
                id >= first && (id - first).is_multiple_of(step),
                "{SLURM_ID}: expected {first} and every {step} after it, found {id}; say --num-parts and --part-id"
            );
            return Ok(Some(((id - first) / step, self.number(SLURM_COUNT)?)));
        }
        match self.number(KUBERNETES_INDEX)? {
            Some(index) => Ok(Some((index, self.number(KUBERNETES_COUNT)?))),
            None => Ok(None),
        }
    }
}

/// The part that the arguments mean; where they are silent and a folder is predicted, the
/// scheduler's.
pub fn part(
    num_parts: Option<usize>,
    part_id: Option<usize>,
    folder: bool,
    environment: &Environment,
) -> anyhow::Result<Part> {
    let told = |id, of| Part { id, of, from: Vec::new() };
    let part = match (num_parts, part_id) {
        (Some(of), Some(id)) => told(id, of),
        (None, Some(_)) => bail!("--part-id: expected --num-parts as well"),
        (None, None) if !folder => told(0, 1),
        (of, None) => match environment.task()? {
            None if of.is_some_and(|of| of > 1) => bail!(
                "--num-parts: expected --part-id as well, or {SLURM_ID} or {KUBERNETES_INDEX}"
            ),
            None => told(0, of.unwrap_or(1)),
            // Part of an array was submitted: which of all the parts it is, it does not say.
            Some((_, Some(count))) if of.is_some_and(|of| of != count) => bail!(
                "--num-parts: expected {count}, as {} say, or --part-id as well, found {}",
                environment.used().join(", "),
                of.unwrap_or_default()
            ),
            Some((id, count)) => match of.or(count) {
                Some(of) => Part { from: environment.used(), ..told(id, of) },
                None => bail!(
                    "{}: expected --num-parts, {SLURM_COUNT} or {KUBERNETES_COUNT} as well",
                    environment.used().join(", ")
                ),
            },
        },
    };
    ensure!(part.of > 0, "--num-parts: expected at least 1, found 0");
    let what = if part.from.is_empty() { "--part-id".to_owned() } else { part.from.join(", ") };
    ensure!(part.id < part.of, "{what}: expected 0 to {}, found {}", part.of - 1, part.id);
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        given: (Option<usize>, Option<usize>),
        variables: &[(&'static str, &str)],
        expected: Result<(usize, usize), &str>,
    ) {
        let environment = Environment(
            variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        );
        match (part(given.0, given.1, true, &environment), expected) {
            (Ok(found), Ok((id, of))) => assert_eq!((found.id, found.of), (id, of)),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn told_or_from_the_scheduler() {
        let slurm = [(SLURM_ID, "3"), (SLURM_COUNT, "10"), (SLURM_FIRST, "0")];
        let from_one = [(SLURM_ID, "5"), (SLURM_COUNT, "3"), (SLURM_FIRST, "1"), (SLURM_STEP, "2")];
        check((None, None), &[], Ok((0, 1)));
        check((Some(4), Some(2)), &slurm, Ok((2, 4)));
        check((None, None), &slurm, Ok((3, 10)));
        check((None, None), &from_one, Ok((2, 3)));
        check((Some(5), None), &[(KUBERNETES_INDEX, "4")], Ok((4, 5)));
        check((None, None), &[(KUBERNETES_INDEX, "4"), (KUBERNETES_COUNT, "6")], Ok((4, 6)));
        check((None, None), &[(KUBERNETES_INDEX, "4")], Err("--num-parts"));
        check((Some(10), None), &slurm, Ok((3, 10)));
        let again = [(SLURM_ID, "3"), (SLURM_COUNT, "1"), (SLURM_FIRST, "3")];
        check((Some(16), None), &again, Err("or --part-id as well, found 16"));
        check((Some(16), Some(3)), &again, Ok((3, 16)));
        check((Some(2), None), &[], Err("--part-id"));
        check((Some(2), Some(2)), &[], Err("expected 0 to 1, found 2"));
        check((Some(0), Some(0)), &[], Err("at least 1"));
        check((None, None), &[(SLURM_ID, "x")], Err("expected a number"));
        let beyond = "SLURM_ARRAY_TASK_COUNT=3: expected 0 to 2, found 9";
        check((None, None), &[(SLURM_ID, "9"), (SLURM_COUNT, "3")], Err(beyond));
        check((None, None), &[(SLURM_ID, "9")], Err("SLURM_ARRAY_TASK_ID=9: expected --num-parts"));
    }

    #[test]
    fn a_single_case_is_not_divided() {
        let environment =
            Environment(vec![(SLURM_ID, "3".to_owned()), (SLURM_COUNT, "9".to_owned())]);
        let whole = Part { id: 0, of: 1, from: Vec::new() };
        assert_eq!(part(None, None, false, &environment).unwrap(), whole);
    }

    #[test]
    fn what_a_scheduler_decided_is_said() {
        let line = |given: (Option<usize>, Option<usize>), variables: &[(&'static str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
            let part = part(given.0, given.1, true, &Environment(variables.collect())).unwrap();
            let taken = part.take(vec!["a", "b"]).len();
            part.line(taken, 2)
        };
        let slurm = [(SLURM_ID, "3"), (SLURM_COUNT, "10"), (KUBERNETES_INDEX, "7")];
        let said = "part 4 of 10 (SLURM_ARRAY_TASK_ID=3, SLURM_ARRAY_TASK_COUNT=10): 0 of 2 cases";
        assert_eq!(line((None, None), &slurm).as_deref(), Some(said));
        let said = "part 1 of 2 (JOB_COMPLETION_INDEX=0): 1 of 2 cases";
        assert_eq!(line((Some(2), None), &[(KUBERNETES_INDEX, "0")]).as_deref(), Some(said));
        assert_eq!(line((Some(2), Some(0)), &slurm), None);
        assert_eq!(line((None, None), &[]), None);
    }
}
