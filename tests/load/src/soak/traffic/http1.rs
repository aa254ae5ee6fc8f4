//! HTTP/1 clients: polite, slow, impatient and wrong ones.

use std::io;
use std::time::Duration;

use dhow_base::Rng;
use dhow_testkit::client::{BodyEnd, Http1Client, Http1Response, ReadError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{ANSWER_LIMIT, BIG, Door, Field, Manner, Right, Target, add};

/// Bytes that are read and thrown away at a time.
const PIECE: usize = 4096;

async fn connect(door: &Door) -> io::Result<Http1Client> {
    let client = Http1Client::connect(door.address, door.tls1.as_ref()).await?;
    add(&door.counts.connections, 1);
    Ok(client)
}

/// Whether the server keeps the connection after `response`.
fn stays(response: &Http1Response) -> bool {
    let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    response.body_end == BodyEnd::Complete && !closes
}

/// Sends one request and judges the answer. `Ok(true)` when the connection can serve another one.
async fn exchange(
    field: &Field,
    door: &Door,
    client: &mut Http1Client,
    target: Target,
    request: &[u8],
    reused: bool,
) -> io::Result<bool> {
    add(&door.counts.requests, 1);
    // A server may answer and close before it has read everything: its answer decides.
    let sent = client.send(request).await;
    match client.response("GET", ANSWER_LIMIT).await {
        Ok(response) => {
            // A path that promises nothing may also end in the middle of the body.
            if response.body_end == BodyEnd::Complete || response.body_end == BodyEnd::WithConnection {
                field.judge(door, &target, response.status, &response.body);
            } else {
                add(&door.counts.answers, 1);
                if !target.may_be_cut() {
                    let end = response.body_end;
                    field.tally.wrong(|| format!("{}{} ended {end:?}", door.name, target.path));
                }
            }
            Ok(stays(&response))
        }
        // The server may close a connection that is idle, or old, in the very moment in which it is used again.
        Err(ReadError::Ended(_, bytes)) if reused && bytes.is_empty() => Ok(false),
        Err(error) => Err(io::Error::other(format!("{}: {error} (sent: {sent:?})", target.path))),
    }
}

fn get(target: Target, more: &str) -> String {
    format!("GET {} HTTP/1.1\r\nhost: soak.test\r\n{more}\r\n", target.path)
}

/// Some requests, one after the other, on one connection for as long as it stays.
pub async fn keep_alive(field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    let mut client = connect(door).await?;
    for number in 0..1 + rng.below(30) {
        let target = Target::any(rng);
        if !exchange(field, door, &mut client, target, get(target, "").as_bytes(), number > 0).await? {
            break;
        }
        if rng.chance(1, 100) {
            // Long enough for the idle timeout.
            tokio::time::sleep(Duration::from_millis(1400 + rng.below(200))).await;
        }
    }
    Ok(())
}

/// Some requests, each on a connection of its own.
pub async fn per_connection(field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    for _ in 0..1 + rng.below(5) {
        let mut client = connect(door).await?;
        let target = Target::any(rng);
        exchange(field, door, &mut client, target, get(target, "connection: close\r\n").as_bytes(), false)
            .await?;
    }
    Ok(())
}

/// Several requests in one write; answers come in order until the server closes.
pub async fn pipelined(field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    let mut client = connect(door).await?;
    let targets: Vec<Target> = (0..2 + rng.below(4)).map(|_| Target::any(rng)).collect();
    let bytes: String = targets.iter().map(|target| get(*target, "")).collect();
    add(&door.counts.requests, targets.len() as u64);
    client.send(bytes).await?;
    for target in targets {
        let Ok(response) = client.response("GET", ANSWER_LIMIT).await else { break };
        if response.body_end == BodyEnd::Complete {
            field.judge(door, &target, response.status, &response.body);
        } else {
            add(&door.counts.answers, 1);
        }
        if !stays(&response) {
            break;
        }
    }
    Ok(())
}

/// A request with a body, by length or in chunks.
pub async fn upload(field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    let mut client = connect(door).await?;
    let target = Target::any(rng);
    let size = rng.index(120_000);
    let mut request = format!("POST {} HTTP/1.1\r\nhost: soak.test\r\n", target.path).into_bytes();
    if rng.chance(1, 2) {
        request.extend(format!("content-length: {size}\r\n\r\n").bytes());
        request.resize(request.len() + size, b'u');
    } else {
        request.extend(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in vec![b'c'; size].chunks(7000) {
            request.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\nx-trailer: t\r\n\r\n");
    }
    // An answer that does not wait for the body may be followed by a reset, and then be lost.
    add(&door.counts.requests, 1);
    let sent = client.send(&request).await;
    match client.response("POST", ANSWER_LIMIT).await {
        Ok(response) if response.body_end == BodyEnd::Complete => {
            field.judge(door, &target, response.status, &response.body);
        }
        Ok(_) => add(&door.counts.answers, 1),
        Err(ReadError::Ended(..)) => {}
        Err(error) => {
            return Err(io::Error::other(format!("upload {}: {error} (sent: {sent:?})", target.path)));
        }
    }
    Ok(())
}

/// Reads a big body in small pieces with pauses, so that the proxy has to stop the origin.
pub async fn slow_reader(field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    let mut stream = door.open(Manner::TakesLittle).await?;
    let target = Target { path: "/steady/big", right: Right::Big };
    add(&door.counts.requests, 1);
    stream.write_all(get(target, "connection: close\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut piece = [0; PIECE];
    let mut seen = 0;
    loop {
        match timeout(ANSWER_LIMIT, stream.read(&mut piece)).await.map_err(io::Error::other)?? {
            0 => break,
            read => seen += read,
        }
        tokio::time::sleep(Duration::from_millis(rng.below(12))).await;
    }
    if seen > BIG {
        add(&door.counts.answers, 1);
    } else {
        field.tally.wrong(|| format!("slow reader on {} got {seen} bytes", door.name));
    }
    Ok(())
}

/// Leaves, orderly or with a reset, before the answer, in the middle of it, or with half of a request sent.
pub async fn abort(_field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    let mut stream = door.open(Manner::of_leaving(rng)).await?;
    let request = get(Target::any(rng), "");
    let length = if rng.chance(1, 4) { 1 + rng.index(request.len() - 1) } else { request.len() };
    add(&door.counts.requests, 1);
    stream.write_all(&request.as_bytes()[..length]).await?;
    stream.flush().await?;
    if rng.chance(1, 2) {
        let mut piece = vec![0; 1 + rng.index(PIECE)];
        let pause = Duration::from_millis(1 + rng.below(60));
        if let Ok(Ok(read)) = timeout(pause, stream.read(&mut piece)).await
            && piece[..read].starts_with(b"HTTP/1.1 2")
        {
            add(&door.counts.answers, 1);
        }
    }
    Ok(())
}

/// Leaves in the middle of its request's body.
pub async fn abort_upload(_field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    let mut stream = door.open(Manner::of_leaving(rng)).await?;
    let target = Target::any(rng);
    let head = format!("POST {} HTTP/1.1\r\nhost: soak.test\r\ncontent-length: 90000\r\n\r\n", target.path);
    add(&door.counts.requests, 1);
    stream.write_all(head.as_bytes()).await?;
    // The server may have answered and closed meanwhile.
    let _ = stream.write_all(&vec![b'a'; rng.index(80_000)]).await;
    let _ = stream.flush().await;
    tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
    Ok(())
}

/// Sends the start of a head and waits until the server has enough of it.
pub async fn unfinished(field: &Field, door: &Door) -> io::Result<()> {
    let mut client = connect(door).await?;
    add(&door.counts.requests, 1);
    client.send("GET /steady/ok HTTP/1.1\r\nhost: soa").await?;
    match client.response("GET", ANSWER_LIMIT).await {
        Ok(response) => {
            let target = Target { path: " without an end", right: Right::Status(408) };
            field.judge(door, &target, response.status, &response.body);
            Ok(())
        }
        Err(error) => Err(io::Error::other(format!("an unfinished head: {error}"))),
    }
}

/// Sends what is no HTTP, or an invalid request.
pub async fn malformed(field: &Field, door: &Door, rng: &mut Rng) -> io::Result<()> {
    const BYTES: [&str; 5] = [
        "GET /steady/ok HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "GET /steady/ok HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
        "GET\r\n\r\n",
        "GET /steady/ok HTTP/1.1\r\n\r\n",
        "POST /steady/ok HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ];
    let mut client = connect(door).await?;
    add(&door.counts.requests, 1);
    client.send(BYTES[rng.index(BYTES.len())]).await?;
    match client.response("GET", ANSWER_LIMIT).await {
        Ok(response) => {
            let target = Target { path: " malformed", right: Right::Status(400) };
            field.judge(door, &target, response.status, &response.body);
            Ok(())
        }
        Err(ReadError::Ended(..)) => Ok(()),
        Err(error) => Err(io::Error::other(format!("malformed bytes: {error}"))),
    }
}
