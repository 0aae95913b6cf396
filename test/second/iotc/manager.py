"""§3.2, §3.7, §3.9 and §3.10: a group manager as far as it shows in octets. Epoch secrets come from a root, as in the vectors."""

from .broadcast import make, sign
from .errors import need
from .primitives import ed25519_public
from .tree import PersonalKey, cover, epoch_secret, personal_labels

EPOCH_SECONDS = 86400


class Membership:
    def __init__(self, ident, start, expires_at=None):
        self.ident, self.start, self.expires_at = ident, start, expires_at
        self.end = None
        self.suspended = False
        self.leaves = {}

    def stands_at(self, nbf):
        return self.end is None and (self.expires_at is None or nbf < self.expires_at)


class Epoch:
    def __init__(self, number, depth, nbf):
        self.number, self.depth, self.nbf = number, depth, nbf
        self.first = None
        self.next_leaf = 0

    def has_room(self):
        return self.next_leaf < 1 << self.depth

    def give(self, member):
        if self.number not in member.leaves:
            member.leaves[self.number] = self.next_leaf
            self.next_leaf += 1


class Manager:
    def __init__(self, gid, root, seed, window, min_depth, recovered_at=1):
        """window: a number of sessions, or (seconds, least number)."""
        self.gid, self.root, self.seed = gid, root, seed
        self.window, self.min_depth, self.recovered_at = window, min_depth, recovered_at
        self.public = ed25519_public(seed)
        self.memberships, self.sessions, self.epochs = [], [], []
        self.active = self.allocated = None
        self.last_epoch = 0

    def em(self, epoch):
        return epoch_secret(self.root, self.gid, epoch)

    @property
    def published(self):
        return len(self.sessions)

    def oldest(self, session, nbf):
        """max(1, r − w(r))"""
        if isinstance(self.window, int):
            w = self.window
        else:
            seconds, least = self.window
            w = max(least, sum(1 for s in self.sessions[: session - 1] if s["nbf"] >= nbf - seconds))
        return max(1, session - min(w, 65535))

    def allocate(self, nbf):
        """`nbf`: when its first session is expected to begin."""
        self.discard(self.allocated)
        members = [m for m in self.memberships if m.stands_at(nbf)]
        oldest, forever = self.oldest(self.published + 1, nbf), float("inf")
        members.sort(
            key=lambda m: (max(m.start, oldest), forever if m.expires_at is None else m.expires_at, m.ident)
        )
        need(len(members) <= 131071, "group/full")
        self.last_epoch += 1
        depth = max(self.min_depth, (2 * len(members) + 1).bit_length())
        self.allocated = Epoch(self.last_epoch, depth, nbf)
        self.epochs.append(self.allocated)
        for member in members:
            self.allocated.give(member)
        return members

    def activate(self):
        need(self.allocated is not None, "group/no-epoch")
        if self.active is not None and self.active.first is None:
            self.discard(self.active)
        self.active, self.allocated = self.allocated, None

    def discard(self, epoch):
        if epoch is None:
            return
        self.epochs.remove(epoch)
        for member in self.memberships:
            member.leaves.pop(epoch.number, None)

    def standing(self, ident):
        return next((m for m in self.memberships if m.ident == ident and m.end is None), None)

    def join(self, ident, current, expires_at=None):
        need(self.active is not None, "group/no-epoch")
        member = self.standing(ident)
        if member is not None:
            member.expires_at, member.suspended = expires_at, False
        else:
            start = max(1, self.published) if current else self.published + 1
            member = Membership(ident, start, expires_at)
        # a tree that has to be made for a newcomer is made for those of before: he gets its next free leaf
        self.provide(member)
        if member not in self.memberships:
            self.memberships.append(member)
        return member

    def provide(self, member):
        """A leaf in the tree in use, and in the one allocated; one is allocated if there is no leaf left."""
        if self.active.has_room():
            self.active.give(member)
        if self.active.number not in member.leaves and self.allocated is None:
            self.allocate(self.sessions[-1]["exp"] if self.sessions else 0)
        if self.allocated is not None and self.allocated.number not in member.leaves:
            if not self.allocated.has_room():
                self.allocate(self.allocated.nbf)
            self.allocated.give(member)

    def leave(self, ident):
        member = self.standing(ident)
        if member is not None:
            member.end, member.suspended = self.published + 1, False

    def suspend(self, ident):
        member = self.standing(ident)
        if member is not None:
            member.suspended = True

    def resume(self, ident):
        member = self.standing(ident)
        if member is not None:
            member.suspended = False

    def personal_key(self, member, number):
        epoch = next(e for e in self.epochs if e.number == number)
        leaf = member.leaves[number]
        labels = personal_labels(self.em(number), epoch.depth, leaf)
        return PersonalKey(
            self.gid, number, epoch.depth, leaf, member.start, labels, epoch.nbf, epoch.nbf + EPOCH_SECONDS
        )

    def epoch_of(self, session):
        return max(e.number for e in self.epochs if e.first is not None and e.first <= session)

    def broadcast(self, nbf, exp):
        need(self.active is not None, "group/no-epoch")
        session, epoch = self.published + 1, self.active
        if epoch.first is None:
            epoch.first, epoch.nbf = session, nbf
        oldest, starts = self.oldest(session, nbf), {}
        for member in self.memberships:
            if member.stands_at(nbf):
                if epoch.has_room():
                    epoch.give(member)
                if not member.suspended and epoch.number in member.leaves:
                    c = max(member.start, oldest, self.recovered_at)
                    starts.setdefault(c, []).append(member.leaves[epoch.number])
            elif member.end is None:
                member.end = session
        if not starts:
            starts[session] = []
        first = min(starts)
        for e in self.epochs:
            if e.first is not None and first < e.first <= session:
                starts.setdefault(e.first, [])
        cohorts = [(c, cover(epoch.depth, starts[c]), self.epoch_of(c)) for c in sorted(starts)]
        made = make(self.gid, self.em, epoch.number, session, nbf, exp, epoch.depth, cohorts)
        octets = sign(made, self.seed, self.public)
        self.sessions.append({"session": session, "nbf": nbf, "exp": exp, "octets": octets, "broadcast": made})
        return octets
