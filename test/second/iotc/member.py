"""§3.8 (second half of the table) and §3.11: what a member derives and keeps."""

from .broadcast import heal_mask, next_z, receive, wrap_mask
from .errors import need
from .primitives import same, xor
from .tree import dyadic, group_key, kcv, time_walk

MAX_RUNS = 64


class Run:
    """What one broadcast opens: z of a cohort and the masked ranges from there on."""

    def __init__(self, broadcast, k, z):
        self.gid, self.session = broadcast.gid, broadcast.session
        self.first = broadcast.cohorts[k].start
        self.cohorts = broadcast.cohorts[k:]
        self.z = z

    def node(self, j):
        """N_j, or None outside the run."""
        if not self.first <= j <= self.session:
            return None
        z = self.z
        for cohort in self.cohorts:
            if j <= cohort.end:
                break
            z = next_z(z)
        nodes = xor(cohort.heal, heal_mask(z, self.gid, self.session, cohort.start, len(cohort.heal)))
        for n, (level, prefix) in enumerate(dyadic(cohort.start, cohort.end)):
            if j >> (32 - level) == prefix:
                return time_walk(nodes[16 * n : 16 * n + 16], level, 32, j)
        raise AssertionError("a range holds its sessions")


class Member:
    def __init__(self, gid, pinned):
        self.gid, self.pinned = gid, pinned
        self.personal, self.given, self.times = {}, {}, {}
        self.runs = []
        self.highest = 0

    def take_personal(self, key):
        """Who left and joined again within an epoch has two leaves in it."""
        need(key.gid == self.gid, "group/bad-personal-key")
        others = [k for k in self.personal.get(key.epoch, []) if k.leaf != key.leaf]
        self.personal[key.epoch] = [*others, key]

    def take_keys(self, pairs):
        for session, key in pairs:
            need(1 <= session <= 0xFFFFFFFF and len(key) == 16, "group/bad-key")
            self.given[session] = key

    def receive(self, octets, asked=False):
        """'opened', 'ignored', 'unknown epoch' or 'not for me'; raises what the table says."""
        broadcast = receive(octets, self.gid, self.pinned, self.highest, asked)
        if broadcast is None:
            return "ignored"
        personals = self.personal.get(broadcast.epoch, [])
        genuine = (broadcast.nbf, broadcast.exp)
        if not personals:
            self.times[broadcast.session] = genuine
            return "unknown epoch"
        run = None
        for personal in personals:
            need(personal.depth == broadcast.depth, "group/wrong-depth")
            run = run or open_with(broadcast, personal)
        if run is None:
            self.times[broadcast.session] = genuine
            return "not for me"
        need(same(kcv(run.node(broadcast.session)), broadcast.kcv), "group/kcv-mismatch")
        self.highest = max(self.highest, broadcast.session)
        self.times[broadcast.session] = genuine
        self.keep(run)
        return "opened"

    def keep(self, run):
        self.runs.append(run)
        for old in list(self.runs):
            others = sorted((r for r in self.runs if r is not old), key=lambda r: r.first)
            for a in others:
                for b in others:
                    meet = a.first <= old.first and b.session >= old.session and b.first <= a.session + 1
                    if old in self.runs and meet:
                        self.runs.remove(old)
        self.runs = self.runs[-MAX_RUNS:]

    def later_began(self, j):
        """When a later session began, the earliest that is known."""
        return min((nbf for session, (nbf, _) in self.times.items() if session > j), default=None)

    def key(self, j):
        for run in reversed(self.runs):
            node = run.node(j)
            if node is not None:
                return group_key(node)
        return self.given.get(j)


def open_with(broadcast, personal):
    for k, cohort in enumerate(broadcast.cohorts):
        for subset, wrap in cohort.subsets:
            if personal.holds(*subset):
                mask = wrap_mask(
                    personal.label(*subset), broadcast.gid, broadcast.epoch, broadcast.session, cohort.start
                )
                return Run(broadcast, k, xor(wrap, mask))
    return None
