//! Durations between two moments of a stream.

use crate::context::{FormatContext, TimePoint};

/// `%COMMON_DURATION(START:END:PRECISION)%` and the durations that have a name of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurationCommand {
    /// `None` is the beginning of the stream.
    pub(crate) from: Option<TimePoint>,
    /// `None` is a moment that is never noted.
    pub(crate) to: Option<TimePoint>,
    pub(crate) precision: Precision,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Precision {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl DurationCommand {
    /// From the beginning of the stream, in milliseconds.
    pub(crate) const fn until(to: TimePoint) -> Self {
        Self { from: None, to: Some(to), precision: Precision::Milliseconds }
    }

    /// Between two moments, in milliseconds.
    pub(crate) const fn between(from: TimePoint, to: TimePoint) -> Self {
        Self { from: Some(from), to: Some(to), precision: Precision::Milliseconds }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, String> {
        let parts: Vec<&str> = args.split(':').collect();
        let (from, to, precision) = match parts[..] {
            [from, to] => (from, to, "ms"),
            [from, to, precision] => (from, to, precision),
            _ => return Err(format!("Invalid common duration configuration: {args}.")),
        };
        let precision = match precision {
            "ms" => Precision::Milliseconds,
            "us" => Precision::Microseconds,
            "ns" => Precision::Nanoseconds,
            other => return Err(format!("Invalid common duration precision: {other}.")),
        };
        if parts.contains(&"US_RX_BODY_BEG") {
            return Err(
                "the time point US_RX_BODY_BEG is not supported: the first byte of a body is not timed"
                    .to_owned(),
            );
        }
        // Other names are of moments that extensions note, of which there are none.
        let (from, to) = time_point(from).zip(time_point(to)).map_or((None, None), |(from, to)| {
            ((from != TimePoint::DownstreamRxBegin).then_some(from), Some(to))
        });
        Ok(Self { from, to, precision })
    }

    /// The duration, unless one of the moments has not come or they are in the wrong order.
    pub(crate) fn value(self, context: &dyn FormatContext) -> Option<u64> {
        let to = context.time(self.to?)?;
        let between = match self.from {
            Some(from) => to.checked_sub(context.time(from)?)?,
            None => to,
        };
        let number = match self.precision {
            Precision::Milliseconds => between.as_millis(),
            Precision::Microseconds => between.as_micros(),
            Precision::Nanoseconds => between.as_nanos(),
        };
        u64::try_from(number).ok()
    }
}

fn time_point(name: &str) -> Option<TimePoint> {
    Some(match name {
        "DS_RX_BEG" => TimePoint::DownstreamRxBegin,
        "DS_RX_END" => TimePoint::DownstreamRxEnd,
        "US_CX_BEG" => TimePoint::UpstreamConnectBegin,
        "US_CX_END" => TimePoint::UpstreamConnectEnd,
        "US_HS_END" => TimePoint::UpstreamHandshakeEnd,
        "US_TX_BEG" => TimePoint::UpstreamTxBegin,
        "US_TX_END" => TimePoint::UpstreamTxEnd,
        "US_RX_BEG" => TimePoint::UpstreamRxBegin,
        "US_RX_BODY_BEG" => TimePoint::UpstreamRxBodyBegin,
        "US_RX_END" => TimePoint::UpstreamRxEnd,
        "DS_TX_BEG" => TimePoint::DownstreamTxBegin,
        "DS_TX_END" => TimePoint::DownstreamTxEnd,
        _ => return None,
    })
}
