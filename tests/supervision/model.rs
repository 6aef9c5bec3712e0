//! Random trees and random mishaps, compared step by step with a plain reference model: the order in which actors are made
//! and dropped, who runs and who waits, how many failures count, and whether the tree is down.
//!
//! The model is written from OTP's rules, without a look at the code: it has one list of events and moves time in the
//! smallest steps at which something is due.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use steadfast::{
    Backoff, ChildSpec, Restart, RestartLimit, Strategy as Rule, Supervisor, SupervisorRef, System,
};

use super::world::*;

const WITHIN: u64 = 10_000;

/// A tree as data, of at most two levels.
#[derive(Debug, Clone)]
struct Plan {
    rule: Rule,
    max: u32,
    kids: Vec<KidPlan>,
}

#[derive(Debug, Clone)]
struct KidPlan {
    restart: Restart,
    /// Milliseconds before a restart.
    wait: u64,
    inner: Option<Plan>,
}

/// Something that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    /// A running actor panics at a fresh message.
    Panic(usize),
    /// A running actor fails at a fresh message so many times, and is made anew in its place.
    Fail(usize, usize),
    /// A running actor is asked to end.
    End(usize),
    Pass(u64),
    Add(Restart, u64),
    StopChild(usize),
    RestartChild(usize),
    DeleteChild(usize),
    RestartProcess,
}

fn restarts() -> impl Strategy<Value = Restart> {
    prop_oneof![3 => Just(Restart::Permanent), 2 => Just(Restart::Transient), 1 => Just(Restart::Temporary)]
}

fn waits() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0u64), 1 => Just(1_000u64)]
}

fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![Just(Rule::OneForOne), Just(Rule::OneForAll), Just(Rule::RestForOne)]
}

fn actors() -> impl Strategy<Value = KidPlan> {
    (restarts(), waits()).prop_map(|(restart, wait)| KidPlan { restart, wait, inner: None })
}

fn plans() -> impl Strategy<Value = Plan> {
    let inner = (rules(), 0..3u32, prop::collection::vec(actors(), 1..4));
    let inner = inner.prop_map(|(rule, max, kids)| Plan { rule, max, kids });
    let nested = (restarts(), waits(), inner);
    let nested = nested.prop_map(|(restart, wait, inner)| KidPlan { restart, wait, inner: Some(inner) });
    let kids = prop::collection::vec(prop_oneof![3 => actors(), 1 => nested], 1..5);
    (rules(), 0..4u32, kids).prop_map(|(rule, max, kids)| Plan { rule, max, kids })
}

fn steps() -> impl Strategy<Value = Step> {
    let any = 0..100usize;
    prop_oneof![
        6 => any.clone().prop_map(Step::Panic),
        3 => (any.clone(), 1..4usize).prop_map(|(which, times)| Step::Fail(which, times)),
        2 => any.clone().prop_map(Step::End),
        4 => prop_oneof![Just(1_000u64), 1..500u64, 4_000..12_000u64].prop_map(Step::Pass),
        1 => (restarts(), waits()).prop_map(|(restart, wait)| Step::Add(restart, wait)),
        1 => any.clone().prop_map(Step::StopChild),
        1 => any.clone().prop_map(Step::RestartChild),
        1 => any.prop_map(Step::DeleteChild),
        2 => Just(Step::RestartProcess),
    ]
}

/// The actors' names: the factory wants them for ever.
const NAMES: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u",
    "v", "w", "x", "y", "z",
];

// ---- the model ----

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stand {
    Up,
    Waits(u64),
    Down,
}

#[derive(Debug, Clone)]
struct Kid {
    name: String,
    restart: Restart,
    wait: u64,
    stand: Stand,
    inner: Option<Box<Sup>>,
}

#[derive(Debug, Clone)]
struct Sup {
    path: String,
    rule: Rule,
    max: usize,
    /// What it starts with each time: what was removed meanwhile comes back, as with OTP's `init`.
    first: Vec<Kid>,
    kids: Vec<Kid>,
    /// Times of the failures that count.
    failures: Vec<u64>,
    not_before: BTreeMap<String, u64>,
}

/// What a supervisor left on disk.
type Left = (Vec<u64>, BTreeMap<String, u64>);

#[derive(Debug, Default)]
struct Model {
    now: u64,
    events: Vec<String>,
    disk: BTreeMap<String, Left>,
    root: Option<Sup>,
}

#[derive(PartialEq)]
enum Came {
    Normally,
    Abnormally,
}

impl Model {
    /// Starts a supervisor's children in order; with what it remembers only if it is not restarted by its parent.
    fn start_sup(&mut self, sup: &mut Sup, remembers: bool) {
        let (failures, not_before) =
            if remembers { self.disk.get(&sup.path).cloned().unwrap_or_default() } else { Left::default() };
        (sup.failures, sup.not_before) = (failures, not_before);
        sup.kids = sup.first.clone();
        self.save(sup);
        for at in 0..sup.kids.len() {
            self.start_first(sup, at);
        }
    }

    /// Starts one child, unless it or one before it on which it depends has to wait.
    fn start_first(&mut self, sup: &mut Sup, at: usize) {
        let own = sup.not_before.get(&sup.kids[at].name).copied().unwrap_or(0);
        let before = sup.kids[..at].iter().filter_map(|kid| match kid.stand {
            Stand::Waits(until) if sup.rule != Rule::OneForOne => Some(until),
            _ => None,
        });
        let until = before.chain([own]).max().unwrap_or(0);
        if until > self.now {
            sup.kids[at].stand = Stand::Waits(until);
        } else {
            self.start_kid(&mut sup.kids[at], true);
        }
    }

    fn start_kid(&mut self, kid: &mut Kid, remembers: bool) {
        kid.stand = Stand::Up;
        match &mut kid.inner {
            Some(inner) => self.start_sup(inner, remembers),
            None => self.events.push(format!("+{}", kid.name)),
        }
    }

    fn stop_kid(&mut self, kid: &mut Kid) {
        if kid.stand == Stand::Up {
            match &mut kid.inner {
                Some(inner) => self.stop_sup(inner),
                None => self.events.push(format!("-{}", kid.name)),
            }
        }
        kid.stand = Stand::Down;
    }

    fn stop_sup(&mut self, sup: &mut Sup) {
        for kid in sup.kids.iter_mut().rev() {
            self.stop_kid(kid);
        }
    }

    fn save(&mut self, sup: &Sup) {
        self.disk.insert(sup.path.clone(), (sup.failures.clone(), sup.not_before.clone()));
    }

    /// True: one too many.
    fn count(&mut self, sup: &mut Sup) -> bool {
        let now = self.now;
        sup.failures.retain(|at| now - at <= WITHIN);
        sup.failures.push(now);
        // no more is ever needed to see that it is too many
        while sup.failures.len() > sup.max + 1 {
            sup.failures.remove(0);
        }
        sup.failures.len() > sup.max
    }

    /// A child of `sup` no longer runs, its last event is written. True: `sup` has failed.
    fn kid_ended(&mut self, sup: &mut Sup, name: &str, came: Came) -> bool {
        let Some(at) = sup.kids.iter().position(|kid| kid.name == name) else { return false };
        sup.kids[at].stand = Stand::Down;
        match sup.kids[at].restart {
            Restart::Temporary => {
                sup.kids.remove(at);
                sup.not_before.remove(name);
                return false;
            }
            Restart::Transient if came == Came::Normally => return false,
            _ => {}
        }
        if self.count(sup) {
            self.save(sup);
            self.stop_sup(sup);
            return true;
        }
        self.restart_group(sup, at);
        self.start_due(sup);
        false
    }

    fn restart_group(&mut self, sup: &mut Sup, failed: usize) {
        let until = self.now + sup.kids[failed].wait;
        sup.not_before.insert(sup.kids[failed].name.clone(), until);
        let group = match sup.rule {
            Rule::OneForOne => failed..failed + 1,
            Rule::OneForAll => 0..sup.kids.len(),
            Rule::RestForOne => failed..sup.kids.len(),
        };
        let mut latest = until;
        for kid in &sup.kids[group.clone()] {
            if let Stand::Waits(until) = kid.stand {
                latest = latest.max(until);
            }
        }
        for at in group.clone().rev() {
            self.stop_kid(&mut sup.kids[at]);
        }
        for kid in &mut sup.kids[group.clone()] {
            kid.stand = Stand::Waits(latest);
        }
        let mut at = 0;
        sup.kids.retain(|kid| {
            let goes = group.contains(&at) && kid.restart == Restart::Temporary;
            at += 1;
            !goes
        });
        self.save(sup);
    }

    fn start_due(&mut self, sup: &mut Sup) {
        let mut due: Vec<(u64, usize)> = Vec::new();
        for (at, kid) in sup.kids.iter().enumerate() {
            if let Stand::Waits(until) = kid.stand
                && until <= self.now
            {
                due.push((until, at));
            }
        }
        due.sort_unstable();
        for (_, at) in due {
            self.start_kid(&mut sup.kids[at], false);
        }
    }

    /// Does something to the supervisor of a path that runs; tells its parent if it failed over it.
    fn at(&mut self, path: &str, deed: impl FnOnce(&mut Self, &mut Sup) -> bool) {
        let Some(mut root) = self.root.take() else { return };
        let failed = if root.path == path {
            deed(self, &mut root)
        } else {
            let kid =
                root.kids.iter_mut().find(|kid| kid.inner.as_ref().is_some_and(|inner| inner.path == path));
            let kid = kid.expect("it is there");
            let inner = kid.inner.as_mut().expect("a supervisor");
            let (name, failed) = (kid.name.clone(), deed(self, inner));
            failed && self.kid_ended(&mut root, &name, Came::Abnormally)
        };
        if !failed {
            self.root = Some(root);
        }
    }

    fn is_near_its_limit(&self, path: &str) -> bool {
        let root = self.root.as_ref().expect("it runs");
        let inner = root.kids.iter().filter_map(|kid| kid.inner.as_deref()).find(|inner| inner.path == path);
        let sup = inner.unwrap_or(root);
        sup.failures.iter().filter(|at| self.now - **at <= WITHIN).count() >= sup.max
    }

    fn next_due(&self) -> Option<(u64, String)> {
        let root = self.root.as_ref()?;
        let up = |kid: &Kid| (kid.stand == Stand::Up).then(|| kid.inner.clone()).flatten();
        let inner = root.kids.iter().filter_map(up).map(|inner| *inner);
        let waits = |sup: &Sup| {
            let untils = sup.kids.iter().filter_map(|kid| match kid.stand {
                Stand::Waits(until) => Some(until),
                _ => None,
            });
            untils.min().map(|until| (until, sup.path.clone()))
        };
        inner.chain([root.clone()]).filter_map(|sup| waits(&sup)).min()
    }

    /// Actors that run: the path of their supervisor, and their name.
    fn running(&self) -> Vec<(String, String)> {
        fn of(sup: &Sup, found: &mut Vec<(String, String)>) {
            for kid in sup.kids.iter().filter(|kid| kid.stand == Stand::Up) {
                match &kid.inner {
                    Some(inner) => of(inner, found),
                    None => found.push((sup.path.clone(), kid.name.clone())),
                }
            }
        }
        let mut found = Vec::new();
        self.root.iter().for_each(|root| of(root, &mut found));
        found
    }

    /// For each supervisor that runs, how its children stand and how many failures count.
    fn shape(&self) -> BTreeMap<String, String> {
        let mut shape = BTreeMap::new();
        if let Some(root) = &self.root {
            self.shape_of(root, &mut shape);
        }
        shape
    }

    fn shape_of(&self, sup: &Sup, shape: &mut BTreeMap<String, String>) {
        let mark = |kid: &Kid| match kid.stand {
            Stand::Up => format!("{}+", kid.name),
            Stand::Waits(_) => format!("{}…", kid.name),
            Stand::Down => format!("{}-", kid.name),
        };
        let kids: Vec<_> = sup.kids.iter().map(mark).collect();
        let count = sup.failures.iter().filter(|at| self.now - **at <= WITHIN).count();
        shape.insert(sup.path.clone(), format!("{} ({count})", kids.join(" ")));
        for kid in sup.kids.iter().filter(|kid| kid.stand == Stand::Up) {
            if let Some(inner) = &kid.inner {
                self.shape_of(inner, shape);
            }
        }
    }
}

// ---- both together ----

struct Both {
    world: World,
    system: System,
    root: SupervisorRef,
    plan: Plan,
    model: Model,
    added: usize,
}

/// Names for the actors of a plan, in order, and what is built from it on either side.
fn model_of(plan: &Plan, path: &str, next: &mut usize) -> Sup {
    let kids = plan.kids.iter().map(|kid| {
        let name = match kid.inner {
            Some(_) => format!("s{next}"),
            None => NAMES[*next].to_owned(),
        };
        *next += 1;
        let inner =
            kid.inner.as_ref().map(|inner| Box::new(model_of(inner, &format!("{path}/{name}"), next)));
        Kid { name, restart: kid.restart, wait: kid.wait, stand: Stand::Down, inner }
    });
    let (kids, max): (Vec<_>, _) = (kids.collect(), plan.max as usize);
    let first = kids.clone();
    Sup {
        path: path.to_owned(),
        rule: plan.rule,
        max,
        first,
        kids,
        failures: Vec::new(),
        not_before: BTreeMap::new(),
    }
}

fn real_of(world: &World, sup: &Sup, name: &str) -> Supervisor {
    let limit = RestartLimit::new(sup.max as u32, Duration::from_millis(WITHIN));
    let children = sup.kids.iter().map(|kid| {
        let child = match &kid.inner {
            Some(inner) => ChildSpec::supervisor(real_of(world, inner, &kid.name)),
            None => world.child(known(&kid.name)),
        };
        child.restart(kid.restart).backoff(Backoff::fixed(Duration::from_millis(kid.wait)))
    });
    children.fold(Supervisor::new(name, sup.rule).limit(limit), Supervisor::child)
}

fn known(name: &str) -> &'static str {
    NAMES.iter().find(|known| **known == name).expect("a name of the list")
}

impl Both {
    async fn new(plan: Plan) -> Self {
        let world = World::new();
        let system = world.open().await;
        let mut model = Model { now: 1_000_000, ..Model::default() };
        let root = Self::supervise(&world, &system, &plan, &mut model).await;
        Both { world, system, root, plan, model, added: 0 }
    }

    async fn supervise(world: &World, system: &System, plan: &Plan, model: &mut Model) -> SupervisorRef {
        let mut sup = model_of(plan, "root", &mut 0);
        let root = system.supervise(real_of(world, &sup, "root")).await.expect("starts");
        model.start_sup(&mut sup, true);
        model.root = Some(sup);
        root
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        // no two things happen at the same time
        self.pass(1).await?;
        match step {
            Step::Panic(which) => {
                let Some((path, name)) = self.choose(*which) else { return Ok(()) };
                self.tell(&path, &name, Do::Panic(1)).await;
                self.model.events.push(format!("-{name}"));
                self.model.at(&path, |model, sup| model.kid_ended(sup, &name, Came::Abnormally));
            }
            Step::Fail(which, times) => {
                let Some((path, name)) = self.choose(*which) else { return Ok(()) };
                // one that is too many is the last: how far the others come then is not said
                let times = if self.model.is_near_its_limit(&path) { 1 } else { *times };
                self.tell(&path, &name, Do::Fail(times as u32)).await;
                for _ in 0..times {
                    self.model.events.extend([format!("-{name}"), format!("+{name}")]);
                }
                self.model.at(&path, |model, sup| {
                    let kid = sup.kids.iter().find(|kid| kid.name == name).expect("it runs");
                    // a message counts once
                    let too_many = kid.restart != Restart::Temporary && model.count(sup);
                    model.save(sup);
                    if too_many {
                        model.stop_sup(sup);
                    }
                    too_many
                });
            }
            Step::End(which) => {
                let Some((path, name)) = self.choose(*which) else { return Ok(()) };
                let actor = hand(&self.sup(&path).await, &name).await;
                soon(actor.stop()).await;
                self.model.events.push(format!("-{name}"));
                self.model.at(&path, |model, sup| model.kid_ended(sup, &name, Came::Normally));
            }
            Step::Pass(time) => self.pass(*time).await?,
            Step::RestartProcess => self.restart_process().await,
            by_hand => self.by_hand(by_hand).await,
        }
        self.settle().await
    }

    /// What is done to a child of the root.
    async fn by_hand(&mut self, step: &Step) {
        let Some(root) = &self.model.root else { return };
        let choose = |which: usize| root.kids.get(which % root.kids.len().max(1)).cloned();
        match step {
            Step::Add(restart, wait) => {
                // the last names are not used by any plan
                let Some(name) = NAMES.iter().rev().nth(self.added).filter(|_| self.added < 5) else {
                    return;
                };
                self.added += 1;
                let backoff = Backoff::fixed(Duration::from_millis(*wait));
                let child = self.world.child(name).restart(*restart).backoff(backoff);
                self.root.start_child(child).await.expect("starts");
                let (name, stand) = ((*name).to_owned(), Stand::Down);
                let kid = Kid { name, restart: *restart, wait: *wait, stand, inner: None };
                self.model.at("root", |model, sup| {
                    sup.kids.push(kid);
                    model.start_first(sup, sup.kids.len() - 1);
                    false
                });
            }
            Step::StopChild(which) => {
                let Some(kid) = choose(*which) else { return };
                self.root.stop_child(&kid.name).await.expect("stops");
                self.model.at("root", |model, sup| {
                    let at = sup.kids.iter().position(|one| one.name == kid.name).expect("it is there");
                    model.stop_kid(&mut sup.kids[at]);
                    if kid.restart == Restart::Temporary {
                        sup.kids.remove(at);
                    }
                    false
                });
            }
            Step::RestartChild(which) => {
                let Some(kid) = choose(*which) else { return };
                let started = self.root.restart_child(&kid.name).await;
                assert_eq!(started.is_err(), kid.stand == Stand::Up, "{started:?}");
                if kid.stand != Stand::Up {
                    self.model.at("root", |model, sup| {
                        let one = sup.kids.iter_mut().find(|one| one.name == kid.name).expect("it is there");
                        model.start_kid(one, true);
                        false
                    });
                }
            }
            Step::DeleteChild(which) => {
                let Some(kid) = choose(*which) else { return };
                let deleted = self.root.delete_child(&kid.name).await;
                assert_eq!(deleted.is_err(), kid.stand == Stand::Up, "{deleted:?}");
                if kid.stand != Stand::Up {
                    self.model.at("root", |_, sup| {
                        sup.kids.retain(|one| one.name != kid.name);
                        sup.not_before.remove(&kid.name);
                        false
                    });
                }
            }
            _ => {}
        }
    }

    async fn restart_process(&mut self) {
        soon(self.system.shutdown(secs(10))).await.expect("shuts down");
        if let Some(mut root) = self.model.root.take() {
            self.model.stop_sup(&mut root);
        }
        self.system = self.world.open().await;
        self.root = Self::supervise(&self.world, &self.system, &self.plan, &mut self.model).await;
    }

    /// Moves time, from one moment at which something is due to the next.
    async fn pass(&mut self, time: u64) -> Result<(), TestCaseError> {
        let end = self.model.now + time;
        loop {
            let due = self.model.next_due().filter(|(until, _)| *until <= end);
            let until = due.as_ref().map_or(end, |(until, _)| *until);
            self.world.pass(Duration::from_millis(until - self.model.now));
            self.model.now = until;
            let Some((_, path)) = due else { return Ok(()) };
            self.model.at(&path, |model, sup| {
                model.start_due(sup);
                false
            });
            self.settle().await?;
        }
    }

    fn choose(&self, which: usize) -> Option<(String, String)> {
        let running = self.model.running();
        running.get(which % running.len().max(1)).cloned()
    }

    async fn sup(&self, path: &str) -> SupervisorRef {
        match path.strip_prefix("root/") {
            Some(inner) => self.root.supervisor(inner).await.expect("it runs"),
            None => self.root.clone(),
        }
    }

    async fn tell(&self, path: &str, name: &str, what: Do) {
        tell(&self.sup(path).await, name, what).await;
    }

    async fn real_shape(&self) -> BTreeMap<String, String> {
        let mut shape = BTreeMap::new();
        let mut left = vec![self.root.clone()];
        while let Some(sup) = left.pop() {
            let (Ok(children), Ok(failures)) = (sup.children().await, sup.failures().await) else { continue };
            let kids = kids_of(&children);
            shape.insert(sup.path().to_owned(), format!("{kids} ({})", failures.len()));
            for child in children.iter().filter(|child| child.is_supervisor) {
                if let Ok(inner) = sup.supervisor(&child.name).await {
                    left.push(inner);
                }
            }
        }
        shape
    }

    /// Waits until the real tree stands as the model's, by the same way.
    async fn settle(&self) -> Result<(), TestCaseError> {
        let (events, shape) = (self.model.events.join(" "), self.model.shape());
        let end = tokio::time::Instant::now() + secs(8);
        loop {
            let real = self.real_shape().await;
            let done = self.world.log.text();
            if done == events && real == shape {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                prop_assert_eq!(&done, &events);
                prop_assert_eq!(&real, &shape);
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// The same cases at each run; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` give others, and more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let given = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if given("PROPTEST_CASES") { usual.cases } else { 64 },
        rng_seed: if given("PROPTEST_RNG_SEED") { usual.rng_seed } else { RngSeed::Fixed(7) },
        failure_persistence: None,
        max_shrink_iters: 12,
        ..usual
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_tree_does_what_the_plain_model_does(plan in plans(), steps in prop::collection::vec(steps(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut both = Both::new(plan).await;
            both.settle().await?;
            for step in &steps {
                both.step(step).await?;
            }
            a_moment().await;
            both.settle().await
        })?;
    }
}
