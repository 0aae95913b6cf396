// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Ask, IPolicy} from "../IPolicy.sol";
import {PolicyCall} from "../PolicyCall.sol";
import {Allowlist} from "../policies/Allowlist.sol";
import {Attestation} from "../policies/Attestation.sol";
import {AllOf, AnyOf, Composite} from "../policies/Composite.sol";
import {Holder, IBalance} from "../policies/Holder.sol";
import {Open} from "../policies/Open.sol";
import {EtherPayment, TokenPayment} from "../policies/Payment.sol";
import {BoundPolicy} from "../policies/Policy.sol";
import {Puzzle} from "../policies/Puzzle.sol";
import {Quota} from "../policies/Quota.sol";
import {AccessTokenBase} from "./AccessTokenBase.sol";
import {Asker, Coin, FalseCoin, HostilePolicy, Lock, NoPayee, SmartAccount} from "./Mocks.sol";

contract PoliciesTest is AccessTokenBase {
    address internal constant PAYEE = address(0xbeef);

    function offer(address policy) internal {
        vm.prank(OWNER);
        token.setOffer(0, policy, DEVICE, CLAIMS, 1 hours, true);
    }

    function grantedTo(address client, bytes memory proof) internal {
        vm.prank(client);
        token.requestToken(0, 60, proof);
        yes(token.isValid(client, DEVICE), "granted");
    }

    function refusedWith(address client, bytes memory proof, bytes4 reason) internal {
        refusedPaying(client, 0, proof, reason);
    }

    function refusedPaying(address client, uint256 value, bytes memory proof, bytes4 reason) internal {
        vm.prank(client);
        (bool ok, bytes memory why) =
            address(token).call{value: value}(abi.encodeCall(token.requestToken, (0, 60, proof)));
        yes(!ok, "refused");
        bytes4 got;
        assembly {
            // PolicyRefused(address policy, bytes32 reason): the reason's selector
            got := mload(add(why, 68))
        }
        eq(bytes32(got), bytes32(reason));
    }

    function askOf(address client) internal view returns (Ask memory) {
        return Ask(client, DEVICE, address(token), client, 0, 60, CLAIMS);
    }

    function pair(address a, address b) internal pure returns (address[] memory list) {
        list = new address[](2);
        list[0] = a;
        list[1] = b;
    }

    // ---------------------------------------------------------------- open

    function test_open() public {
        grantedTo(CLIENT, "whatever");
        eq(keccak256(bytes(open.kind())), keccak256("open"));
        eq(open.price(askOf(CLIENT)), 0);
    }

    function test_policies_that_cost_nothing_refuse_money() public {
        Quota quota = new Quota(1 days, 1, 1);
        Puzzle riddle = new Puzzle(1);
        quota.bind(address(token));
        riddle.bind(address(token));
        address[5] memory policies = [
            address(quota),
            address(riddle),
            address(new Allowlist(OWNER, 0)),
            address(new Attestation(OWNER, 0, new address[](0))),
            address(new Holder(IBalance(address(this)), 1))
        ];
        vm.deal(CLIENT, 1);
        for (uint256 i = 0; i < policies.length; ++i) {
            offer(policies[i]);
            refusedPaying(CLIENT, 1, new bytes(96), IPolicy.UnexpectedValue.selector);
        }
        eq(CLIENT.balance, 1);
    }

    // ---------------------------------------------------------------- puzzle

    Puzzle internal puzzle;

    function withPuzzle(uint8 bits) internal {
        puzzle = new Puzzle(bits);
        puzzle.bind(address(token));
        offer(address(puzzle));
        vm.setBlockhash(block.number - 1, keccak256("recent"));
    }

    function solve(Ask memory ask, uint256 number) internal view returns (bytes memory) {
        bytes32 challenge = puzzle.challenge(ask, blockhash(number));
        for (uint256 nonce = 0;; ++nonce) {
            if (uint256(sha256(abi.encode(challenge, nonce))) >> (256 - puzzle.difficulty()) == 0) {
                return abi.encode(uint64(number), nonce);
            }
        }
        revert();
    }

    function test_a_solved_puzzle_serves_once() public {
        withPuzzle(6);
        bytes memory proof = solve(askOf(CLIENT), block.number - 1);
        grantedTo(CLIENT, proof);
        refusedWith(CLIENT, proof, Puzzle.AlreadyUsed.selector);
        eq(keccak256(bytes(puzzle.kind())), keccak256("puzzle"));
    }

    function test_a_solution_serves_its_client_and_offer_only() public {
        withPuzzle(16);
        bytes memory proof = solve(askOf(CLIENT), block.number - 1);
        // a front-runner with the same octets
        refusedWith(STRANGER, proof, Puzzle.NotSolved.selector);
        vm.prank(OWNER);
        token.setOffer(1, address(puzzle), DEVICE, CLAIMS, 1 hours, true);
        vm.expectRevert(
            abi.encodeWithSelector(
                PolicyCall.PolicyRefused.selector, address(puzzle), bytes32(Puzzle.NotSolved.selector)
            )
        );
        vm.prank(CLIENT);
        token.requestToken(1, 60, proof);
        grantedTo(CLIENT, proof);
    }

    function test_a_victims_solution_cannot_be_used_up() public {
        withPuzzle(6);
        bytes memory proof = solve(askOf(CLIENT), block.number - 1);
        Asker thief = new Asker();
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.NotConsumer.selector, address(thief)));
        thief.ask(puzzle, askOf(CLIENT), proof);
        grantedTo(CLIENT, proof);
    }

    function test_old_future_and_malformed_solutions_are_refused() public {
        withPuzzle(1);
        refusedWith(CLIENT, abi.encode(uint64(block.number), 0), Puzzle.UnknownBlock.selector);
        refusedWith(CLIENT, abi.encode(uint64(block.number - 257), 0), Puzzle.UnknownBlock.selector);
        refusedWith(CLIENT, abi.encode(type(uint64).max, 0), Puzzle.UnknownBlock.selector);
        refusedWith(CLIENT, "", Puzzle.BadProof.selector);
        refusedWith(CLIENT, new bytes(65), Puzzle.BadProof.selector);
        vm.expectRevert(Puzzle.BadDifficulty.selector);
        new Puzzle(0);
        vm.expectRevert(Puzzle.BadDifficulty.selector);
        new Puzzle(65);
    }

    function test_fuzz_a_wrong_nonce_is_refused(uint256 nonce) public {
        withPuzzle(64);
        refusedWith(CLIENT, abi.encode(uint64(block.number - 1), nonce), Puzzle.NotSolved.selector);
    }

    // ---------------------------------------------------------------- bind

    function test_binding() public {
        Puzzle p = new Puzzle(1);
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.NotConsumer.selector, address(this)));
        p.check(askOf(CLIENT), "");
        vm.expectRevert(BoundPolicy.NotDeployer.selector);
        vm.prank(STRANGER);
        p.bind(STRANGER);
        vm.expectRevert(BoundPolicy.ZeroAddress.selector);
        p.bind(address(0));
        vm.expectEmit(true, true, true, true, address(p));
        emit BoundPolicy.Bound(address(token));
        p.bind(address(token));
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.AlreadyBound.selector, address(token)));
        p.bind(STRANGER);
        eq(p.consumer(), address(token));
        eq(p.deployer(), address(this));
    }

    // ---------------------------------------------------------------- allowlist

    function leaf(address client) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(client))));
    }

    function node(bytes32 a, bytes32 b) internal pure returns (bytes32) {
        return a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
    }

    function test_allowlist() public {
        Allowlist list = new Allowlist(OWNER, node(leaf(CLIENT), leaf(address(1))));
        offer(address(list));
        bytes32[] memory siblings = new bytes32[](1);
        siblings[0] = leaf(address(1));
        grantedTo(CLIENT, abi.encode(siblings));
        refusedWith(STRANGER, abi.encode(siblings), Allowlist.NotListed.selector);
        // an inner node does not pass as a leaf
        refusedWith(STRANGER, abi.encode(new bytes32[](0)), Allowlist.NotListed.selector);
        vm.expectRevert(Allowlist.NotOwner.selector);
        vm.prank(STRANGER);
        list.setRoot(0);
        vm.expectEmit(true, true, true, true, address(list));
        emit Allowlist.RootSet(leaf(STRANGER));
        vm.prank(OWNER);
        list.setRoot(leaf(STRANGER));
        grantedTo(STRANGER, abi.encode(new bytes32[](0)));
        refusedWith(CLIENT, abi.encode(siblings), Allowlist.NotListed.selector);
        eq(keccak256(bytes(list.kind())), keccak256("allowlist"));
    }

    // ---------------------------------------------------------------- attestation

    uint256 internal constant ISSUER = 0x155;
    bytes32 internal constant STATEMENT = keccak256("salt, lives at this address");
    Attestation internal attestation;

    function withAttestation(address issuer) internal {
        address[] memory issuers = new address[](1);
        issuers[0] = issuer;
        attestation = new Attestation(OWNER, STATEMENT, issuers);
        offer(address(attestation));
    }

    function attest(address client, bytes32 statement, uint64 until) internal view returns (bytes32) {
        bytes32 kind = keccak256("Attestation(address client,bytes32 statement,uint64 expiresAt)");
        return digestOf(address(attestation), keccak256(abi.encode(kind, client, statement, until)));
    }

    function test_attestation() public {
        address issuer = vm.addr(ISSUER);
        withAttestation(issuer);
        uint64 until = uint64(block.timestamp + 60);
        bytes memory good = abi.encode(issuer, until, signed(ISSUER, attest(CLIENT, STATEMENT, until)));
        grantedTo(CLIENT, good);
        refusedWith(STRANGER, good, Attestation.BadSignature.selector);
        refusedWith(
            CLIENT,
            abi.encode(issuer, until, malleated(ISSUER, attest(CLIENT, STATEMENT, until))),
            Attestation.BadSignature.selector
        );
        refusedWith(
            CLIENT,
            abi.encode(issuer, until, signed(ISSUER, attest(CLIENT, "another statement", until))),
            Attestation.BadSignature.selector
        );
        refusedWith(
            CLIENT,
            abi.encode(STRANGER, until, signed(ISSUER, attest(CLIENT, STATEMENT, until))),
            Attestation.UnknownIssuer.selector
        );
        eq(keccak256(bytes(attestation.kind())), keccak256("attestation"));
    }

    function test_no_token_outlives_its_attestation() public {
        address issuer = vm.addr(ISSUER);
        withAttestation(issuer);
        uint64 until = uint64(block.timestamp + 59);
        bytes memory proof = abi.encode(issuer, until, signed(ISSUER, attest(CLIENT, STATEMENT, until)));
        refusedWith(CLIENT, proof, Attestation.TooShort.selector);
    }

    function test_malformed_attestations_are_refused() public {
        address issuer = vm.addr(ISSUER);
        withAttestation(issuer);
        uint64 until = uint64(block.timestamp + 60);
        bytes memory s = signed(ISSUER, attest(CLIENT, STATEMENT, until));
        refusedWith(CLIENT, abi.encode(issuer, until), Attestation.BadSignature.selector);
        refusedWith(CLIENT, abi.encodePacked(abi.encode(issuer, until, 64, 65), s), Attestation.BadSignature.selector);
        refusedWith(CLIENT, abi.encodePacked(abi.encode(issuer, until, 96, 66), s), Attestation.BadSignature.selector);
        grantedTo(CLIENT, abi.encodePacked(abi.encode(issuer, until, 96, 65), s));
    }

    function test_contract_accounts_issue_attestations() public {
        SmartAccount issuer = new SmartAccount(vm.addr(ISSUER));
        withAttestation(address(issuer));
        uint64 until = uint64(block.timestamp + 60);
        bytes memory proof = abi.encode(address(issuer), until, signed(ISSUER, attest(CLIENT, STATEMENT, until)));
        grantedTo(CLIENT, proof);
        issuer.setMood(SmartAccount.Mood.Endless);
        refusedWith(CLIENT, proof, Attestation.BadSignature.selector);
    }

    function test_issuers_are_the_owners_choice() public {
        address issuer = vm.addr(ISSUER);
        withAttestation(issuer);
        uint64 until = uint64(block.timestamp + 60);
        bytes memory proof = abi.encode(issuer, until, signed(ISSUER, attest(CLIENT, STATEMENT, until)));
        vm.expectRevert(Attestation.NotOwner.selector);
        vm.prank(STRANGER);
        attestation.setIssuer(STRANGER, true);
        vm.prank(OWNER);
        attestation.setIssuer(issuer, false);
        refusedWith(CLIENT, proof, Attestation.UnknownIssuer.selector);
    }

    // ---------------------------------------------------------------- payment

    function test_payment_in_ether() public {
        EtherPayment pay = new EtherPayment(PAYEE, 100, 2);
        pay.bind(address(token));
        offer(address(pay));
        eq(pay.price(askOf(CLIENT)), 220);
        vm.deal(CLIENT, 1000);
        refusedPaying(CLIENT, 219, "", EtherPayment.WrongAmount.selector);
        refusedPaying(CLIENT, 221, "", EtherPayment.WrongAmount.selector);
        refusedPaying(CLIENT, 0, "", EtherPayment.WrongAmount.selector);
        eq(CLIENT.balance, 1000);
        vm.prank(CLIENT);
        token.requestToken{value: 220}(0, 60, "");
        yes(token.isValid(CLIENT, DEVICE), "granted");
        eq(address(pay).balance, 220);
        vm.prank(STRANGER);
        pay.withdraw();
        eq(PAYEE.balance, 220);
        eq(keccak256(bytes(pay.kind())), keccak256("payment-ether"));
    }

    function test_a_payee_that_cannot_be_paid_stops_nobody() public {
        EtherPayment pay = new EtherPayment(address(new NoPayee()), 1, 0);
        pay.bind(address(token));
        offer(address(pay));
        vm.deal(CLIENT, 1);
        vm.prank(CLIENT);
        token.requestToken{value: 1}(0, 60, "");
        vm.expectRevert(EtherPayment.WithdrawalFailed.selector);
        pay.withdraw();
        vm.expectRevert(BoundPolicy.ZeroAddress.selector);
        new EtherPayment(address(0), 1, 0);
    }

    function test_payment_in_a_currency() public {
        Coin coin = new Coin();
        TokenPayment pay = new TokenPayment(coin, PAYEE, 100, 2);
        pay.bind(address(token));
        offer(address(pay));
        coin.mint(CLIENT, 1000);
        refusedWith(CLIENT, "", bytes4(keccak256("ERC20InsufficientAllowance(address,uint256,uint256)")));
        vm.prank(CLIENT);
        coin.approve(address(pay), 440);
        grantedTo(CLIENT, "");
        eq(coin.balanceOf(PAYEE), 220);
        // nobody but the consumer may draw on the allowance
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.NotConsumer.selector, address(this)));
        pay.check(askOf(CLIENT), "");
        vm.deal(CLIENT, 1);
        refusedPaying(CLIENT, 1, "", IPolicy.UnexpectedValue.selector);
        eq(keccak256(bytes(pay.kind())), keccak256("payment-token"));
        eq(pay.price(askOf(CLIENT)), 0);
        vm.expectRevert(BoundPolicy.ZeroAddress.selector);
        new TokenPayment(IERC20(address(0)), PAYEE, 1, 1);
    }

    function test_a_currency_that_fails_quietly_is_noticed() public {
        TokenPayment pay = new TokenPayment(IERC20(address(new FalseCoin())), PAYEE, 100, 2);
        pay.bind(address(token));
        offer(address(pay));
        refusedWith(CLIENT, "", bytes4(keccak256("SafeERC20FailedOperation(address)")));
    }

    function test_fuzz_a_price_never_overflows_into_a_low_one(uint256 fixedPart, uint256 perSecond, uint64 ttl) public {
        EtherPayment pay = new EtherPayment(PAYEE, fixedPart, perSecond);
        Ask memory ask = askOf(CLIENT);
        ask.ttl = ttl;
        try pay.amountOf(ask) returns (uint256 amount) {
            yes(amount >= fixedPart && (ttl == 0 || amount >= perSecond), "no overflow");
        } catch {
            yes(ttl > 0, "only a huge price is refused");
        }
    }

    // ---------------------------------------------------------------- quota

    function test_quota() public {
        Quota quota = new Quota(1 days, 2, 3);
        quota.bind(address(token));
        offer(address(quota));
        grantedTo(CLIENT, "");
        grantedTo(CLIENT, "");
        refusedWith(CLIENT, "", Quota.ClientExhausted.selector);
        grantedTo(STRANGER, "");
        refusedWith(SERVER, "", Quota.Exhausted.selector);
        vm.warp(block.timestamp + 1 days);
        grantedTo(CLIENT, "");
        vm.expectRevert(Quota.NoTime.selector);
        new Quota(0, 1, 1);
        eq(keccak256(bytes(quota.kind())), keccak256("quota"));
        eq(quota.price(askOf(CLIENT)), 0);
    }

    function test_a_quota_cannot_be_used_up_by_a_stranger() public {
        Quota quota = new Quota(1 days, 1, 1);
        quota.bind(address(token));
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.NotConsumer.selector, address(this)));
        quota.check(askOf(CLIENT), "");
    }

    // ---------------------------------------------------------------- holder

    function test_holder() public {
        Lock lock = new Lock();
        Holder holder = new Holder(IBalance(address(lock)), 2);
        offer(address(holder));
        lock.set(CLIENT, 1);
        refusedWith(CLIENT, "", Holder.NotHolder.selector);
        lock.set(CLIENT, 2);
        grantedTo(CLIENT, "");
        vm.expectRevert(Holder.ZeroAsset.selector);
        new Holder(IBalance(address(0)), 1);
        vm.expectRevert(Holder.ZeroAsset.selector);
        new Holder(IBalance(address(lock)), 0);
        eq(keccak256(bytes(holder.kind())), keccak256("holder"));
    }

    // ---------------------------------------------------------------- composites

    function allOf(address a, address b) internal returns (AllOf all) {
        all = new AllOf(pair(a, b));
        all.bind(address(token));
        offer(address(all));
    }

    function both(bytes memory a, bytes memory b) internal pure returns (bytes memory) {
        bytes[] memory proofs = new bytes[](2);
        proofs[0] = a;
        proofs[1] = b;
        return abi.encode(proofs);
    }

    function test_all_of_asks_every_part() public {
        Lock lock = new Lock();
        Holder holder = new Holder(IBalance(address(lock)), 1);
        Quota quota = new Quota(1 days, 1, 10);
        AllOf all = allOf(address(quota), address(holder));
        quota.bind(address(all));
        refusedWith(CLIENT, both("", ""), Holder.NotHolder.selector);
        lock.set(CLIENT, 1);
        // the refusal took back what the quota had counted
        grantedTo(CLIENT, both("", ""));
        refusedWith(CLIENT, both("", ""), Quota.ClientExhausted.selector);
        refusedWith(STRANGER, abi.encode(new bytes[](1)), AllOf.WrongProofs.selector);
        eq(keccak256(bytes(all.kind())), keccak256("all-of"));
        eq(all.parts().length, 2);
    }

    function test_all_of_gives_each_part_its_price() public {
        EtherPayment a = new EtherPayment(PAYEE, 100, 0);
        EtherPayment b = new EtherPayment(PAYEE, 11, 0);
        AllOf all = allOf(address(a), address(b));
        a.bind(address(all));
        b.bind(address(all));
        eq(all.price(askOf(CLIENT)), 111);
        vm.deal(CLIENT, 1000);
        refusedPaying(CLIENT, 110, both("", ""), AllOf.WrongAmount.selector);
        refusedPaying(CLIENT, 112, both("", ""), AllOf.WrongAmount.selector);
        refusedPaying(CLIENT, 0, both("", ""), AllOf.WrongAmount.selector);
        vm.prank(CLIENT);
        token.requestToken{value: 111}(0, 60, both("", ""));
        eq(address(a).balance, 100);
        eq(address(b).balance, 11);
    }

    /// AllOf(Puzzle, Quota) called directly with what a victim sent to the pool.
    function test_a_composite_cannot_be_used_up_by_a_stranger() public {
        puzzle = new Puzzle(6);
        Quota quota = new Quota(1 days, 1, 10);
        AllOf all = allOf(address(puzzle), address(quota));
        puzzle.bind(address(all));
        quota.bind(address(all));
        vm.setBlockhash(block.number - 1, keccak256("recent"));
        bytes memory proof = both(solve(askOf(CLIENT), block.number - 1), "");
        Asker thief = new Asker();
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.NotConsumer.selector, address(thief)));
        thief.ask(all, askOf(CLIENT), proof);
        AllOf own = new AllOf(pair(address(puzzle), address(quota)));
        own.bind(address(thief));
        vm.expectRevert();
        thief.ask(own, askOf(CLIENT), proof);
        grantedTo(CLIENT, proof);
    }

    function test_any_of_asks_the_chosen_part() public {
        Lock lock = new Lock();
        Holder holder = new Holder(IBalance(address(lock)), 1);
        EtherPayment pay = new EtherPayment(PAYEE, 100, 0);
        AnyOf any = new AnyOf(pair(address(holder), address(pay)));
        any.bind(address(token));
        pay.bind(address(any));
        offer(address(any));
        eq(any.price(askOf(CLIENT)), 0);
        refusedWith(CLIENT, abi.encode(0, bytes("")), Holder.NotHolder.selector);
        refusedWith(CLIENT, abi.encode(2, bytes("")), AnyOf.NoSuchPart.selector);
        vm.deal(CLIENT, 100);
        vm.prank(CLIENT);
        token.requestToken{value: 100}(0, 60, abi.encode(1, bytes("")));
        yes(token.isValid(CLIENT, DEVICE), "paid");
        lock.set(STRANGER, 1);
        grantedTo(STRANGER, abi.encode(0, bytes("")));
        eq(keccak256(bytes(any.kind())), keccak256("any-of"));
        vm.expectRevert(abi.encodeWithSelector(BoundPolicy.NotConsumer.selector, address(this)));
        any.check(askOf(CLIENT), abi.encode(0, bytes("")));
        AnyOf dear = new AnyOf(pair(address(pay), address(new EtherPayment(PAYEE, 7, 0))));
        eq(dear.price(askOf(CLIENT)), 7);
    }

    function test_composites_have_one_to_eight_parts() public {
        vm.expectRevert(Composite.BadParts.selector);
        new AllOf(new address[](0));
        vm.expectRevert(Composite.BadParts.selector);
        new AnyOf(new address[](9));
        address[] memory eight = new address[](8);
        for (uint256 i = 0; i < 8; ++i) {
            eight[i] = address(open);
        }
        eq(new AllOf(eight).parts().length, 8);
        vm.expectRevert(Composite.BadParts.selector);
        new AllOf(pair(address(open), address(0)));
    }

    function test_a_hostile_part_costs_its_limit_and_no_more() public {
        HostilePolicy hostile = new HostilePolicy();
        allOf(address(open), address(hostile));
        for (uint8 mood = 1; mood <= uint8(HostilePolicy.Mood.ReenterFor); ++mood) {
            if (mood == uint8(HostilePolicy.Mood.Bomb)) continue;
            hostile.set(HostilePolicy.Mood(mood), token);
            vm.prank(CLIENT);
            uint256 before = gasleft();
            (bool ok,) = address(token).call(abi.encodeCall(token.requestToken, (0, 60, both("", ""))));
            yes(!ok, "refused");
            atMost(before - gasleft(), PolicyCall.GAS + 70_000, "gas of a refusal");
        }
        hostile.set(HostilePolicy.Mood.Bomb, token);
        grantedTo(CLIENT, both("", ""));
    }

    /// The dearest sensible condition fits into the gas that a policy gets.
    function test_a_puzzle_a_quota_and_a_payment_fit_together() public {
        puzzle = new Puzzle(4);
        Quota quota = new Quota(1 days, 1, 10);
        Coin coin = new Coin();
        TokenPayment pay = new TokenPayment(coin, PAYEE, 5, 0);
        address[] memory parts = new address[](3);
        (parts[0], parts[1], parts[2]) = (address(puzzle), address(quota), address(pay));
        AllOf all = new AllOf(parts);
        all.bind(address(token));
        puzzle.bind(address(all));
        quota.bind(address(all));
        pay.bind(address(all));
        offer(address(all));
        vm.setBlockhash(block.number - 1, keccak256("recent"));
        coin.mint(CLIENT, 5);
        vm.prank(CLIENT);
        coin.approve(address(pay), 5);
        bytes[] memory proofs = new bytes[](3);
        proofs[0] = solve(askOf(CLIENT), block.number - 1);
        grantedTo(CLIENT, abi.encode(proofs));
    }
}
