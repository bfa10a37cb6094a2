//! Films that people asked for. One bridge at a time works on one; whoever was not heard of for a while has lost it to the next.

use super::{Catalog, CatalogError, store::ask};

/// Films that are kept; of more the oldest go.
pub const MAX_FILMS: i64 = 20;
/// Films that wait or are worked on.
pub const MAX_WAITING: i64 = 5;

const FILM: &str =
    "SELECT id, asked, asked_by, device, camera, wanted, state, changed, looked, images, frames, oldest,
    object, bytes, note, attempts FROM film";

/// A film.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FilmRow {
    /// Its name in addresses.
    pub id: String,
    /// When it was asked for: milliseconds since 1970, like all times.
    pub asked: i64,
    /// By whom.
    pub asked_by: String,
    /// Of which device.
    pub device: String,
    /// Of which of its cameras.
    pub camera: String,
    /// The rest of what is wanted, in JSON.
    pub wanted: String,
    /// `waiting`, `working`, `done` or `failed`
    pub state: String,
    /// When whoever works on it was heard of last.
    pub changed: i64,
    /// Images that were looked at.
    pub looked: i64,
    /// Of so many.
    pub images: i64,
    /// Frames that it has.
    pub frames: i64,
    /// When the first of its images was received.
    pub oldest: Option<i64>,
    /// Its key in the object store, once it is done.
    pub object: Option<String>,
    /// Its length.
    pub bytes: i64,
    /// What was left out, or why there is none.
    pub note: Option<String>,
    /// Times that it was begun.
    pub attempts: i64,
}

/// A film that is done.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'f> {
    /// Its key in the object store.
    pub object: &'f str,
    /// Its length.
    pub bytes: i64,
    /// Images that were looked at.
    pub images: i64,
    /// Frames.
    pub frames: i64,
    /// When the first of its images was received.
    pub oldest: i64,
    /// What was left out.
    pub note: &'f str,
}

impl Catalog {
    /// Asks for a film. False: enough of them wait.
    pub async fn ask_for_film(&self, film: &FilmRow) -> Result<bool, CatalogError> {
        let failed = self.failed("asking for a film");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let sql = "SELECT count(*) FROM film WHERE state IN ('waiting', 'working')";
        let waiting: Vec<(i64,)> = tx.rows(ask(sql)).await.map_err(&failed)?;
        if waiting.first().is_some_and(|(waiting,)| *waiting >= MAX_WAITING) {
            tx.commit().await.map_err(failed)?;
            return Ok(false);
        }
        let sql = "INSERT INTO film (id, asked, asked_by, device, camera, wanted, state, changed)
             VALUES ($1, $2, $3, $4, $5, $6, 'waiting', $2)";
        let row = ask(sql)
            .bind(film.id.as_str())
            .bind(film.asked)
            .bind(film.asked_by.as_str())
            .bind(film.device.as_str())
            .bind(film.camera.as_str())
            .bind(film.wanted.as_str());
        tx.run(row).await.map_err(&failed)?;
        let subject = format!("{}/{}", film.device, film.camera);
        super::sessions::note(&mut tx, film.asked, &film.asked_by, "timelapse", &subject, &film.wanted)
            .await
            .map_err(&failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(true)
    }

    /// All of them, the newest first.
    pub async fn films(&self) -> Result<Vec<FilmRow>, CatalogError> {
        let sql = format!("{FILM} ORDER BY asked DESC, id LIMIT 100");
        self.store.rows(ask(&sql)).await.map_err(self.failed("reading films"))
    }

    /// One of them.
    pub async fn film(&self, id: &str) -> Result<Option<FilmRow>, CatalogError> {
        let sql = format!("{FILM} WHERE id = $1");
        self.store.row(ask(&sql).bind(id)).await.map_err(self.failed("reading a film"))
    }

    /// Takes the one that waits longest, or one whose bridge was not heard of since `silent`.
    pub async fn take_film(
        &self,
        holder: &str,
        now: i64,
        silent: i64,
    ) -> Result<Option<FilmRow>, CatalogError> {
        let failed = self.failed("taking a film");
        let sql = format!(
            "{FILM} WHERE state = 'waiting' OR (state = 'working' AND (changed < $1 OR holder = $2)) ORDER BY asked LIMIT 5"
        );
        let found: Vec<FilmRow> =
            self.store.rows(ask(&sql).bind(silent).bind(holder)).await.map_err(&failed)?;
        for film in found {
            // Whoever is first has it.
            let sql = "UPDATE film SET state = 'working', holder = $1, changed = $2, attempts = attempts + 1
                 WHERE id = $3 AND state = $4 AND changed = $5";
            let take = ask(sql).bind(holder).bind(now).bind(film.id.as_str());
            let taken = self.store.run(take.bind(film.state.as_str()).bind(film.changed)).await;
            if taken.map_err(&failed)? > 0 {
                return Ok(Some(film));
            }
        }
        Ok(None)
    }

    /// How far a film is. False: it is no longer this one's.
    pub async fn film_goes_on(
        &self,
        id: &str,
        holder: &str,
        now: i64,
        (looked, images): (i64, i64),
    ) -> Result<bool, CatalogError> {
        let sql = "UPDATE film SET changed = $1, looked = $2, images = $3
             WHERE id = $4 AND holder = $5 AND state = 'working'";
        let note = ask(sql).bind(now).bind(looked).bind(images).bind(id).bind(holder);
        self.store.run(note).await.map(|rows| rows > 0).map_err(self.failed("noting a film's progress"))
    }

    /// By which key it is going to be in the store. False: it is no longer this one's.
    pub async fn film_goes_to(&self, id: &str, holder: &str, object: &str) -> Result<bool, CatalogError> {
        let sql = "UPDATE film SET object = $1 WHERE id = $2 AND holder = $3 AND state = 'working'";
        let note = ask(sql).bind(object).bind(id).bind(holder);
        self.store.run(note).await.map(|rows| rows > 0).map_err(self.failed("noting where a film goes"))
    }

    /// It is done. False: it is no longer this one's.
    pub async fn film_is_done(
        &self,
        id: &str,
        holder: &str,
        now: i64,
        film: Finished<'_>,
    ) -> Result<bool, CatalogError> {
        let sql =
            "UPDATE film SET state = 'done', changed = $1, object = $2, bytes = $3, frames = $4, oldest = $5,
                 note = $6, images = $7, looked = $7
             WHERE id = $8 AND holder = $9 AND state = 'working'";
        let note = ask(sql)
            .bind(now)
            .bind(film.object)
            .bind(film.bytes)
            .bind(film.frames)
            .bind(film.oldest)
            .bind(film.note)
            .bind(film.images)
            .bind(id)
            .bind(holder);
        self.store.run(note).await.map(|rows| rows > 0).map_err(self.failed("noting a film"))
    }

    /// There will be none.
    pub async fn film_failed(&self, id: &str, holder: &str, now: i64, why: &str) -> Result<(), CatalogError> {
        let sql = "UPDATE film SET state = 'failed', changed = $1, note = $2
             WHERE id = $3 AND holder = $4 AND state = 'working'";
        let note = ask(sql).bind(now).bind(why).bind(id).bind(holder);
        self.store.run(note).await.map(drop).map_err(self.failed("noting a film"))
    }

    /// Those that have to go: more than [`MAX_FILMS`], and those of whose images one was received before `expired`.
    pub async fn films_to_remove(&self, expired: Option<i64>) -> Result<Vec<FilmRow>, CatalogError> {
        let sql = format!(
            "{FILM} WHERE oldest < $1 OR id IN (SELECT id FROM film ORDER BY asked DESC, id LIMIT 1000 OFFSET $2) LIMIT 100"
        );
        let query = ask(&sql).bind(expired.unwrap_or(i64::MIN)).bind(MAX_FILMS);
        self.store.rows(query).await.map_err(self.failed("looking for old films"))
    }

    /// Its object is gone, or is removed next by whoever works on it.
    pub async fn forget_film(&self, id: &str) -> Result<(), CatalogError> {
        let run = self.store.run(ask("DELETE FROM film WHERE id = $1").bind(id)).await;
        run.map(drop).map_err(self.failed("removing a film"))
    }

    /// Keys of the objects of all films, and the lengths of those that are done.
    pub async fn film_objects(&self) -> Result<Vec<(String, Option<i64>)>, CatalogError> {
        let sql = "SELECT object, CASE WHEN state = 'done' THEN bytes END FROM film WHERE object IS NOT NULL";
        self.store.rows(ask(sql)).await.map_err(self.failed("reading films"))
    }
}
