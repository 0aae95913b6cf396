// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccessToken} from "../AccessToken.sol";
import {PolicyCall} from "../PolicyCall.sol";
import {AccessTokenBase} from "./AccessTokenBase.sol";
import {HostilePolicy, SmartAccount} from "./Mocks.sol";

/// Requests that somebody else pays for.
contract SponsoredTest is AccessTokenBase {
    uint256 internal constant KEY = 0xc0ffee;
    address internal alice;

    function setUp() public override {
        super.setUp();
        alice = vm.addr(KEY);
    }

    function digest(address client, uint32 offer, uint64 ttl, bytes memory proof, uint256 nonce, uint256 deadline)
        internal
        view
        returns (bytes32)
    {
        bytes32 kind = keccak256(
            "TokenRequest(address client,uint256 offer,uint64 ttl,bytes32 proofHash,uint256 nonce,uint256 deadline)"
        );
        return digestOf(
            address(token), keccak256(abi.encode(kind, client, offer, ttl, keccak256(proof), nonce, deadline))
        );
    }

    function request(address client, uint64 ttl, bytes memory proof, uint256 deadline, bytes memory signature) internal {
        vm.prank(STRANGER);
        token.requestTokenFor(client, 0, ttl, proof, deadline, signature);
    }

    function test_a_relay_asks_for_a_client_without_money() public {
        request(alice, 60, "", block.timestamp, signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp)));
        yes(token.isValid(alice, DEVICE), "the client has it");
        yes(!token.isValid(STRANGER, DEVICE), "the relay has not");
        eq(token.nonces(alice), 1);
    }

    function test_a_request_serves_once() public {
        bytes memory signature = signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp));
        request(alice, 60, "", block.timestamp, signature);
        vm.prank(SERVER);
        token.deleteToken(alice, DEVICE);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, signature);
    }

    function test_a_request_ends_at_its_deadline() public {
        bytes memory signature = signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp));
        uint256 deadline = block.timestamp;
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(AccessToken.Expired.selector, deadline));
        request(alice, 60, "", deadline, signature);
    }

    function test_every_field_is_covered_by_the_signature() public {
        bytes memory signature = signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp));
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 61, "", block.timestamp, signature);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "x", block.timestamp, signature);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp + 1, signature);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(STRANGER, 60, "", block.timestamp, signature);
        vm.prank(OWNER);
        token.setOffer(1, address(open), DEVICE, CLAIMS, 1 hours, true);
        vm.expectRevert(AccessToken.BadSignature.selector);
        token.requestTokenFor(alice, 1, 60, "", block.timestamp, signature);
        AccessToken other = new AccessToken(OWNER, DEVICE);
        vm.prank(OWNER);
        other.setOffer(0, address(open), DEVICE, CLAIMS, 1 hours, true);
        vm.expectRevert(AccessToken.BadSignature.selector);
        other.requestTokenFor(alice, 0, 60, "", block.timestamp, signature);
        vm.chainId(5);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, signature);
    }

    function test_a_malleated_signature_is_refused() public {
        bytes32 d = digest(alice, 0, 60, "", 0, block.timestamp);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, malleated(KEY, d));
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, "");
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(address(0), 60, "", block.timestamp, new bytes(65));
    }

    function test_a_signer_can_take_back_what_was_not_sent() public {
        bytes memory signature = signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp));
        vm.prank(alice);
        token.skipNonce();
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, signature);
    }

    function test_a_refused_request_leaves_its_nonce() public {
        HostilePolicy hostile = new HostilePolicy();
        vm.prank(OWNER);
        token.setOffer(0, address(hostile), DEVICE, CLAIMS, 1 hours, true);
        hostile.set(HostilePolicy.Mood.WrongMagic, token);
        bytes memory signature = signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp));
        vm.expectRevert(
            abi.encodeWithSelector(PolicyCall.PolicyRefused.selector, address(hostile), bytes32(bytes4(0x12345678)))
        );
        request(alice, 60, "", block.timestamp, signature);
        eq(token.nonces(alice), 0);
        hostile.set(HostilePolicy.Mood.Agree, token);
        request(alice, 60, "", block.timestamp, signature);
        yes(token.isValid(alice, DEVICE), "granted at last");
    }

    function test_contract_accounts_sign_too() public {
        SmartAccount account = new SmartAccount(alice);
        bytes memory signature = signed(KEY, digest(address(account), 0, 60, "", 0, block.timestamp));
        request(address(account), 60, "", block.timestamp, signature);
        yes(token.isValid(address(account), DEVICE), "granted");
    }

    function test_hostile_contract_accounts_are_refused_cheaply() public {
        SmartAccount account = new SmartAccount(alice);
        bytes memory signature = signed(KEY, digest(address(account), 0, 60, "", 0, block.timestamp));
        for (uint8 mood = 1; mood <= uint8(SmartAccount.Mood.Short); ++mood) {
            account.setMood(SmartAccount.Mood(mood));
            uint256 before = gasleft();
            vm.expectRevert(AccessToken.BadSignature.selector);
            request(address(account), 60, "", block.timestamp, signature);
            atMost(before - gasleft(), 250_000, "gas of a refused account");
        }
        account.setMood(SmartAccount.Mood.Honest);
        request(address(account), 60, "", block.timestamp, signature);
        yes(token.isValid(address(account), DEVICE), "the same signature still holds");
    }

    function test_an_account_with_code_may_sign_with_its_own_key() public {
        // EIP-7702: code at an address whose key lives on
        vm.etch(alice, address(new SmartAccount(address(1))).code);
        request(alice, 60, "", block.timestamp, signed(KEY, digest(alice, 0, 60, "", 0, block.timestamp)));
        yes(token.isValid(alice, DEVICE), "granted");
    }

    function test_fuzz_nobody_signs_for_another(uint256 key, bytes32 noise, bytes calldata junk) public {
        key = 1 + (key % (2 ** 200));
        vm.assume(vm.addr(key) != alice);
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, signed(key, digest(alice, 0, 60, "", 0, block.timestamp)));
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, signed(KEY, noise));
        vm.expectRevert(AccessToken.BadSignature.selector);
        request(alice, 60, "", block.timestamp, junk);
    }
}
