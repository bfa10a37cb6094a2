//! `edgeveil-bridge`: see [`edgeveil_bridge`].

use anyhow::{Context, Result};
use clap::Parser;
use edgeveil_bridge::enroll::{Book, Secret, Token};
use edgeveil_bridge::{
    catalog::Catalog,
    certs::{self, Kind, Replace},
    check,
    cli::{
        CertsArgs, CertsCommand, Cli, Command, ConfigArgs, DemoArgs, EnrollArgs, EnrollCommand,
        OutboxCommand, TimelapseArgs, UsersArgs, UsersCommand, VerifyArgs,
    },
    demo, enroll, film,
    forward::NotifyService,
    objects::Objects,
    serve::{self, Bridge},
    settings::{LogFormat, LogSettings, Settings},
    telemetry::Telemetry,
    verify,
    web::access::{password, users::Users},
};
use edgeveil_wire::DeviceName;
use jiff::Timestamp;
use std::{fs, io::IsTerminal, os::unix::fs::DirBuilderExt, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// sysexits' EX_USAGE.
const BAD_SETTINGS: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("edgeveil-bridge: another crypto provider is in place");
        return ExitCode::FAILURE;
    }
    let done = match Cli::parse().command {
        Command::Serve(args) => with_settings(&args, async |settings| run(settings).await).await,
        Command::Worker(args) => with_settings(&args, async |settings| work(settings).await).await,
        Command::Check(args) => with_settings(&args, async |settings| check(&settings).await).await,
        Command::Migrate(args) => with_settings(&args, async |settings| migrate(&settings).await).await,
        Command::Verify(args) => with_settings(&args.config, async |s| verify(&s, &args).await).await,
        Command::Outbox(args) => with_settings(&args.config, async |s| outbox(&s, &args.command).await).await,
        Command::Demo(args) => demo(args).await,
        Command::Enroll(args) => {
            let config = ConfigArgs { config: args.config.clone() };
            with_settings(&config, async |settings| enroll(&settings, &args).await).await
        }
        Command::Notify(args) => with_settings(&args, async |settings| notify(&settings).await).await,
        Command::Timelapse(args) => with_settings(&args.config, async |s| timelapse(&s, &args).await).await,
        Command::Users(args) => users(&args).map(|()| ExitCode::SUCCESS),
        Command::Certs(args) => certificates(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("edgeveil-bridge: {error:#}");
        ExitCode::FAILURE
    })
}

/// Settings first: nothing is opened with bad ones.
async fn with_settings(
    args: &ConfigArgs,
    run: impl AsyncFnOnce(Settings) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let variables: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match Settings::load(args.config.as_deref(), &variables) {
        Ok(settings) => {
            let telemetry = Telemetry::start(&settings.log, settings.otlp.as_ref())?;
            let done = run(settings).await;
            tokio::task::block_in_place(|| telemetry.end());
            done
        }
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("edgeveil-bridge: {problem}"));
            Ok(ExitCode::from(BAD_SETTINGS))
        }
    }
}

/// Ends when somebody wants us to stop.
fn asked_to_stop() -> Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

async fn demo(args: DemoArgs) -> Result<ExitCode> {
    let telemetry =
        Telemetry::start(&LogSettings { filter: "warn".to_owned(), format: LogFormat::Text }, None)?;
    let asked = asked_to_stop()?;
    let (sender, interrupted) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        asked.await;
        sender.send_replace(true);
        // Receivers look at the value, which has to outlive this task.
        sender.closed().await;
    });
    let end = if args.check { demo::End::Check(args.timeout) } else { demo::End::Interrupt };
    let options = demo::Options { agent: args.agent, models: args.models, state: args.state, end };
    demo::run(&options, interrupted).await?;
    telemetry.end();
    Ok(ExitCode::SUCCESS)
}

/// Looks only, but for the film.
async fn notify(settings: &Settings) -> Result<ExitCode> {
    let notify = settings.forward.notify.as_ref();
    let service = NotifyService::open(notify.context("there is no [forward.notify] in the settings")?)?;
    service.try_it().await?;
    println!("{} has taken an example", service.place());
    Ok(ExitCode::SUCCESS)
}

async fn timelapse(settings: &Settings, args: &TimelapseArgs) -> Result<ExitCode> {
    let zone = jiff::tz::TimeZone::get(&args.zone).with_context(|| format!("--zone {}", args.zone))?;
    let moment = |text: &str, end: bool| -> Result<i64> {
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(moment.as_millisecond());
        }
        let day: jiff::civil::Date =
            text.parse().with_context(|| format!("`{text}`: wants 2026-11-21 or 2026-11-21T10:00:00Z"))?;
        let day = if end { day.tomorrow()? } else { day };
        Ok(day.to_zoned(zone.clone())?.timestamp().as_millisecond())
    };
    let wanted = film::Wanted {
        device: args.device.clone(),
        camera: args.camera.clone(),
        from: moment(&args.from, false)?,
        to: moment(&args.to, true)?,
        every: args.every,
        fps: args.fps,
        dark: args.dark,
        blurred: args.blurred,
        distinct: args.distinct,
        stamp: (!args.no_stamp).then(|| zone.clone()),
        side: args.side,
        most: u64::MAX,
        file: args.output.clone(),
    };
    let (catalog, objects) =
        (Catalog::open_read_only(&settings.catalog).await?, Objects::open_existing(&settings.objects).await?);
    let (terminal, mut last) = (std::io::stderr().is_terminal(), 0);
    let told = |done: usize, all: usize| {
        let percent = done * 100 / all.max(1);
        if terminal {
            eprint!("\r{done} of {all} images ({percent} %) ");
        } else if percent / 10 > last {
            last = percent / 10;
            eprintln!("{done} of {all} images ({percent} %)");
        }
    };
    let made = film::make(&catalog, &objects, &wanted, told).await;
    if terminal {
        eprintln!();
    }
    println!("{}", serde_json::to_string(&made?)?);
    Ok(ExitCode::SUCCESS)
}

fn users(args: &UsersArgs) -> Result<()> {
    let path = &args.file;
    let known = if path.exists() { Users::read(path)? } else { Users::default() };
    match &args.command {
        UsersCommand::Add { name, role } => {
            let password = password::read(name)?;
            known.with(name, *role, &password)?.write(path)?;
            println!("{name} is a {role} of {}", path.display());
        }
        UsersCommand::Ls => known.all().iter().for_each(|user| println!("{}\t{}", user.name, user.role)),
        UsersCommand::Rm { name } => match known.without(name) {
            Some(left) => left.write(path)?,
            None => anyhow::bail!("{}: there is no user {name}", path.display()),
        },
    }
    Ok(())
}

/// What is kept is for this user and its group alone: pictures, and what sensors say.
fn keep_from_others() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
}

async fn run(settings: Settings) -> Result<ExitCode> {
    keep_from_others();
    let asked = asked_to_stop()?;
    let mut bridge = Bridge::start(&settings).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "edgeveil-bridge runs");
    // For people; whoever reads JSON finds the addresses in the log.
    let say = |line: String| {
        if settings.log.format == LogFormat::Text {
            println!("{line}");
        }
    };
    if let Some(address) = bridge.mqtt {
        tracing::info!(%address, "MQTT over TLS");
        say(format!("MQTT over TLS on {address}"));
    }
    if let Some(address) = bridge.enroll {
        tracing::info!(%address, "enrolment over HTTPS");
        say(format!("enrolment on https://{address}/"));
    }
    tracing::info!(address = %bridge.http, "pages");
    say(format!("pages on http://{}/", bridge.http));
    let failed = tokio::select! {
        () = asked => None,
        part = bridge.failed() => Some(part),
    };
    tracing::info!("stopping");
    let late = bridge.stop().await;
    anyhow::ensure!(failed.is_none(), "{} ended by itself; see the log", failed.unwrap_or_default());
    anyhow::ensure!(
        late.is_empty(),
        "did not stop within {} s: {}",
        serve::DEADLINE.as_secs(),
        late.join(", ")
    );
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "worker"))]
async fn work(_: Settings) -> Result<ExitCode> {
    anyhow::bail!("{}", serve::NO_WORKER)
}

#[cfg(feature = "worker")]
async fn work(settings: Settings) -> Result<ExitCode> {
    use edgeveil_bridge::anonymise::program::Program;
    keep_from_others();
    let asked = asked_to_stop()?;
    let mut program = Program::start(&settings).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "edgeveil-bridge worker runs");
    if let Some(address) = program.http {
        tracing::info!(%address, "probes");
        println!("probes on http://{address}/");
    }
    println!("worker runs");
    let failed = tokio::select! {
        () = asked => None,
        part = program.failed() => Some(part),
    };
    tracing::info!("stopping");
    let late = program.stop().await;
    anyhow::ensure!(failed.is_none(), "{} ended by itself; see the log", failed.unwrap_or_default());
    anyhow::ensure!(
        late.is_empty(),
        "did not stop within {} s: {}",
        serve::DEADLINE.as_secs(),
        late.join(", ")
    );
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn check(settings: &Settings) -> Result<ExitCode> {
    check::check(settings).await?;
    println!("settings are good");
    Ok(ExitCode::SUCCESS)
}

async fn migrate(settings: &Settings) -> Result<ExitCode> {
    keep_from_others();
    Catalog::open(&settings.catalog).await?.close().await;
    println!("catalog {} is up to date", settings.catalog);
    Ok(ExitCode::SUCCESS)
}

async fn verify(settings: &Settings, args: &VerifyArgs) -> Result<ExitCode> {
    let catalog = Catalog::open_read_only(&settings.catalog).await?;
    let objects = Objects::open_existing(&settings.objects).await?;
    let findings = verify::verify(&catalog, &objects).await?;
    let mut good = true;
    for finding in &findings {
        println!("{}", serde_json::to_string(finding)?);
        let bad = finding.is_wrong() || (args.gapless && finding.is_gap());
        good &= !bad;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn enroll(settings: &Settings, args: &EnrollArgs) -> Result<ExitCode> {
    keep_from_others();
    fs::DirBuilder::new().recursive(true).mode(0o750).create(&settings.data_dir).with_context(|| {
        format!(
            "data folder {}; give the settings that the bridge runs with (--config)",
            settings.data_dir.display()
        )
    })?;
    let book = Book::open(&settings.data_dir).await?;
    let now = Timestamp::now().as_millisecond();
    let said = match &args.command {
        EnrollCommand::Token { device, lasts } => token(settings, &book, device, *lasts).await,
        EnrollCommand::List => list_enrolled(&book).await,
        EnrollCommand::Revoke { number } => book.revoke_token(*number, now).await?.then(|| format!("token {number} is revoked")).with_context(|| {
            format!("token {number} is used, revoked or not there; `edgeveil-bridge enroll list` shows all. A device that has its certificate is kept from the next one by `edgeveil-bridge enroll block`")
        }),
        EnrollCommand::Block { device } => {
            book.block(device, now).await?;
            Ok(format!("{device} gets no certificate any more; the one it has is good until its end"))
        }
        EnrollCommand::Unblock { device } => {
            book.unblock(device).await?;
            Ok(format!("{device} may have certificates"))
        }
    };
    println!("{}", said?);
    Ok(ExitCode::SUCCESS)
}

async fn token(settings: &Settings, book: &Book, device: &DeviceName, lasts: Duration) -> Result<String> {
    let enroll = settings
        .enroll
        .as_ref()
        .context("this bridge enrols nobody; set enroll.listen and enroll.host in its settings")?;
    anyhow::ensure!(
        !lasts.is_zero() && lasts <= enroll::MAX_TOKEN,
        "--for wants a time of up to {} days",
        enroll::MAX_TOKEN.as_secs() / 86_400
    );
    let ca = certs::fingerprint(&enroll.ca)
        .with_context(|| format!("the registrar's CA (enroll.ca) in {}", enroll.ca.display()))?;
    anyhow::ensure!(
        !book.blocked().await?.iter().any(|blocked| blocked == device.as_str()),
        "{device} is blocked; `edgeveil-bridge enroll unblock {device}` first"
    );
    let (secret, now) = (Secret::random()?, Timestamp::now().as_millisecond());
    let expires = now + i64::try_from(lasts.as_millis()).context("--for")?;
    let mut token = None;
    let made = |number| token.insert(Token::new(number, &secret)).hash();
    book.add_token(device, now, expires, made).await?;
    let token = token.context("a token has its number")?;
    let until = utc(expires);
    Ok(format!("# once, on {device}, before {until}:\n{}", enroll::command(enroll, device, &token, &ca)))
}

async fn list_enrolled(book: &Book) -> Result<String> {
    let now = Timestamp::now().as_millisecond();
    let mut lines = vec![format!("{:<6} {:<24} {:<20} state", "token", "device", "expires")];
    for token in book.tokens().await? {
        let state = match (token.used, token.revoked) {
            (Some(used), _) => format!("used {} from {}", utc(used), token.used_from.unwrap_or_default()),
            (None, Some(revoked)) => format!("revoked {}", utc(revoked)),
            (None, None) if token.expires <= now => "expired".to_owned(),
            (None, None) => "open".to_owned(),
        };
        lines.push(format!("{:<6} {:<24} {:<20} {state}", token.number, token.device, utc(token.expires)));
    }
    lines.push(format!("\n{:<24} {:<20} {:<20} {:<32}  by", "certificate of", "issued", "expires", "serial"));
    for row in book.enrolled().await? {
        let (issued, expires) = (utc(row.issued), utc(row.expires));
        lines.push(format!(
            "{:<24} {issued:<20} {expires:<20} {:<32}  {}",
            row.device, row.serial, row.origin
        ));
    }
    let blocked = book.blocked().await?;
    if !blocked.is_empty() {
        lines.push(format!("\nblocked: {}", blocked.join(", ")));
    }
    Ok(lines.join("\n"))
}

fn utc(millisecond: i64) -> String {
    Timestamp::from_millisecond(millisecond)
        .map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

async fn outbox(settings: &Settings, command: &OutboxCommand) -> Result<ExitCode> {
    // Makes nothing: the catalog has to be there.
    let catalog = Catalog::open_read_only(&settings.catalog).await?;
    if let OutboxCommand::Ls { state, limit } = command {
        for entry in catalog.outbox_entries(*state, *limit).await? {
            println!("{}", serde_json::to_string(&entry)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    catalog.close().await;
    let catalog = Catalog::open(&settings.catalog).await?;
    let rows = match command {
        OutboxCommand::Ls { .. } => 0,
        OutboxCommand::Retry { numbers, all } => {
            catalog.outbox_retry((!all).then_some(numbers.as_slice())).await?
        }
        OutboxCommand::Replay { from, to, target } => {
            let to = to.unwrap_or_else(jiff::Timestamp::now);
            catalog.outbox_replay(target, from.as_millisecond(), to.as_millisecond()).await?
        }
    };
    catalog.close().await;
    println!("{rows} alerts wait to be sent");
    anyhow::ensure!(rows > 0, "there was none; see `outbox ls`");
    Ok(ExitCode::SUCCESS)
}

fn certificates(args: &CertsArgs) -> Result<()> {
    let replace = if args.force { Replace::Allow } else { Replace::Refuse };
    let issue = |kind, name: &str, sans: &[String]| {
        let issued = certs::issue(&args.dir, kind, name, sans, replace)?;
        println!(
            "ca   {}\ncert {}\nkey  {}",
            issued.ca.display(),
            issued.cert.display(),
            issued.key.display()
        );
        Ok(())
    };
    match &args.command {
        CertsCommand::Init => {
            certs::init(&args.dir, replace)?;
            println!("ca   {}", args.dir.join("ca.pem").display());
            Ok(())
        }
        CertsCommand::Device { name } => issue(Kind::Device, name, &[]),
        CertsCommand::Broker { name, san } => issue(Kind::Broker, name, san),
        CertsCommand::Observer { name } => issue(Kind::Observer, name, &[]),
        CertsCommand::List => {
            println!("{:<24} {:<9} {:<20} {:>5}  serial", "name", "kind", "expires", "days");
            for cert in certs::list(&args.dir).context("listing certificates")? {
                let expires = cert.expires.strftime("%Y-%m-%d %H:%M UTC").to_string();
                println!(
                    "{:<24} {:<9} {:<20} {:>5}  {}",
                    cert.name, cert.kind, expires, cert.days_left, cert.serial
                );
            }
            Ok(())
        }
    }
}
