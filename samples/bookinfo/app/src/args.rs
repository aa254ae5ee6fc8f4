//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Parser, ValueEnum};

/// Port of every Bookinfo service.
const PORT: u16 = 9080;

/// Serve one part of the Bookinfo sample application.
#[derive(Clone, Debug, Parser)]
#[command(name = "bookinfo", disable_version_flag = true)]
pub struct Args {
    /// Service to be.
    #[arg(value_enum)]
    pub role: Role,
    /// Version of the service; only reviews has more than one.
    #[arg(long, value_enum, default_value_t = Version::V1)]
    pub version: Version,
    /// Address and port to listen on [default: BIND_ADDRESS, or all interfaces, and port 9080].
    #[arg(long, value_name = "ADDR:PORT")]
    pub bind: Option<SocketAddr>,
}

/// A Bookinfo service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Role {
    /// The web page and its API.
    Productpage,
    /// Facts about a book.
    Details,
    /// Reviews of a book, with stars from ratings in v2 and v3.
    Reviews,
    /// Stars that reviewers gave.
    Ratings,
}

impl Role {
    /// The name as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews => "reviews",
            Self::Ratings => "ratings",
        }
    }
}

/// Version of a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Version {
    /// The only one of most services; reviews without stars.
    V1,
    /// Reviews with black stars.
    V2,
    /// Reviews with red stars.
    V3,
}

impl Args {
    /// Parses the arguments after the program's name; the error also stands for a request for help.
    pub fn parse_after_name(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let args = Self::try_parse_from(std::iter::once(OsString::from("bookinfo")).chain(args))?;
        if args.role != Role::Reviews && args.version != Version::V1 {
            return Err(clap::Error::raw(
                clap::error::ErrorKind::InvalidValue,
                format!("{} has only version v1\n", args.role.name()),
            ));
        }
        Ok(args)
    }

    /// Where to listen, given the value of `BIND_ADDRESS`.
    pub fn listen_on(&self, bind_address: Option<&str>) -> Result<SocketAddr, String> {
        if let Some(bind) = self.bind {
            return Ok(bind);
        }
        let address = match bind_address {
            None | Some("") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(text) => text.parse().map_err(|_| format!("BIND_ADDRESS {text:?} is not an IP address"))?,
        };
        Ok(SocketAddr::new(address, PORT))
    }
}
