//! Rules of numbers: the fourteen rule types that differ in nothing but the type of the number.

use std::fmt::Display;

use envoy_types::pb::validate as pgv;

/// Any of the number rules.
pub(super) struct NumberRules<'a, T> {
    constant: Option<T>,
    less: Option<T>,
    at_most: Option<T>,
    greater: Option<T>,
    at_least: Option<T>,
    one_of: &'a [T],
    none_of: &'a [T],
    ignore_empty: bool,
}

/// Gives the rules of one number type in the common form.
pub(super) trait AsNumberRules<T> {
    fn as_number_rules(&self) -> NumberRules<'_, T>;
}

macro_rules! number_rules {
    ($($rules:ident: $number:ty,)*) => {
        $(impl AsNumberRules<$number> for pgv::$rules {
            fn as_number_rules(&self) -> NumberRules<'_, $number> {
                let Self { r#const, lt, lte, gt, gte, r#in, not_in, ignore_empty } = self;
                NumberRules {
                    constant: *r#const,
                    less: *lt,
                    at_most: *lte,
                    greater: *gt,
                    at_least: *gte,
                    one_of: r#in,
                    none_of: not_in,
                    ignore_empty: ignore_empty.unwrap_or(false),
                }
            }
        })*
    };
}

number_rules! {
    FloatRules: f32,
    DoubleRules: f64,
    Int32Rules: i32,
    Int64Rules: i64,
    UInt32Rules: u32,
    UInt64Rules: u64,
    SInt32Rules: i32,
    SInt64Rules: i64,
    Fixed32Rules: u32,
    Fixed64Rules: u64,
    SFixed32Rules: i32,
    SFixed64Rules: i64,
}

impl<T: PartialOrd + Display + Default + Copy> NumberRules<'_, T> {
    pub(super) fn check(&self, value: T) -> Result<(), String> {
        if self.ignore_empty && value == T::default() {
            return Ok(());
        }
        if let Some(constant) = self.constant
            && value != constant
        {
            return Err(format!("value must equal {constant}"));
        }
        check_range(value, self.bounds(), &|bound| bound.to_string())?;
        check_list(value, self.one_of, self.none_of, &|item| item.to_string())
    }

    fn bounds(&self) -> Bounds<T> {
        Bounds { less: self.less, at_most: self.at_most, greater: self.greater, at_least: self.at_least }
    }
}

/// Lower and upper bounds; when the lower one is above the upper one, they describe the range to stay out of.
#[derive(Clone, Copy)]
pub(super) struct Bounds<T> {
    pub less: Option<T>,
    pub at_most: Option<T>,
    pub greater: Option<T>,
    pub at_least: Option<T>,
}

pub(super) fn check_range<T: PartialOrd + Copy>(
    value: T,
    bounds: Bounds<T>,
    show: &dyn Fn(T) -> String,
) -> Result<(), String> {
    let upper = bounds.less.map(|bound| (bound, false)).or(bounds.at_most.map(|bound| (bound, true)));
    let lower = bounds.greater.map(|bound| (bound, false)).or(bounds.at_least.map(|bound| (bound, true)));
    let below = |(bound, inclusive): (T, bool)| value < bound || (inclusive && value == bound);
    let above = |(bound, inclusive): (T, bool)| value > bound || (inclusive && value == bound);
    match (lower, upper) {
        (Some(lower), Some(upper)) => {
            let opening = if lower.1 { '[' } else { '(' };
            let closing = if upper.1 { ']' } else { ')' };
            if upper.0 >= lower.0 {
                if !(above(lower) && below(upper)) {
                    return Err(format!(
                        "value must be inside range {opening}{}, {}{closing}",
                        show(lower.0),
                        show(upper.0)
                    ));
                }
            } else if !(above(lower) || below(upper)) {
                return Err(format!("value must be outside range ({}, {})", show(upper.0), show(lower.0)));
            }
        }
        (Some(lower), None) if !above(lower) => {
            let relation = if lower.1 { "greater than or equal to" } else { "greater than" };
            return Err(format!("value must be {relation} {}", show(lower.0)));
        }
        (None, Some(upper)) if !below(upper) => {
            let relation = if upper.1 { "less than or equal to" } else { "less than" };
            return Err(format!("value must be {relation} {}", show(upper.0)));
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn check_list<T: PartialEq + Copy>(
    value: T,
    one_of: &[T],
    none_of: &[T],
    show: &dyn Fn(T) -> String,
) -> Result<(), String> {
    let listed = |list: &[T]| list.iter().map(|&item| show(item)).collect::<Vec<_>>().join(" ");
    if !one_of.is_empty() && !one_of.contains(&value) {
        return Err(format!("value must be in list [{}]", listed(one_of)));
    }
    if none_of.contains(&value) {
        return Err(format!("value must not be in list [{}]", listed(none_of)));
    }
    Ok(())
}
