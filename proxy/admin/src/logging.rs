//! `/logging`.

use std::fmt::Write;

use crate::query::QueryParams;
use crate::reply::Reply;
use crate::state::{AdminState, LogLevel};

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
                     usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
                     usage: /logging?level=<level> (change all levels)\n\
                     usage: /logging?group=<group_name>:<level> (change group of loggers)\n\
                     levels: trace debug info warning error critical off \n";

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    match change(state, query) {
        Ok(()) => Reply::text(loggers(state)),
        Err(reason) => Reply::error(400, format!("error: {reason}\n\n{USAGE}{}", loggers(state))),
    }
}

fn loggers(state: &dyn AdminState) -> String {
    let mut out = "active loggers:\n".to_owned();
    for (name, level) in state.loggers() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name}: {}", level.name());
    }
    out.push('\n');
    out
}

fn change(state: &dyn AdminState, query: &QueryParams) -> Result<(), &'static str> {
    // The page's form sends all of its fields, also those that were left empty.
    let mut given = query.firsts();
    given.retain(|(_, value)| !value.is_empty());
    let changes: Vec<(Option<&str>, &str)> = match given[..] {
        [] => return Ok(()),
        [("level", value)] => vec![(None, value)],
        [("paths", value)] => named(value)?,
        [("group", _)] => return Err("group parameter requires fine-grain logging to be enabled"),
        [(name, value)] => vec![(Some(name), value)],
        _ => return Err("invalid number of parameters"),
    };
    let known = state.loggers();
    let mut levels = Vec::with_capacity(changes.len());
    for (name, level) in changes {
        levels.push((name, LogLevel::from_name(level).ok_or("unknown logger level")?));
    }
    let is_known = |name: &str| known.iter().any(|(logger, _)| logger == name);
    if levels.iter().any(|(name, _)| name.is_some_and(|name| !is_known(name))) {
        return Err("unknown logger name");
    }
    for (name, level) in levels {
        if !state.set_log_level(name, level) {
            return Err("unknown logger name");
        }
    }
    Ok(())
}

fn named(list: &str) -> Result<Vec<(Option<&str>, &str)>, &'static str> {
    let each = list.split(',').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once(':') {
        Some((name, level)) if !name.is_empty() && !level.is_empty() => Ok((Some(name), level)),
        _ => Err("empty logger name or empty logger level"),
    });
    each.collect()
}
