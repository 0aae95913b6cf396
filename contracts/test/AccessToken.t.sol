// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {AccessToken, Offer} from "../AccessToken.sol";
import {IAccessToken, Token} from "../IAccessToken.sol";
import {AccessTokenBase} from "./AccessTokenBase.sol";

contract AccessTokenTest is AccessTokenBase {
    // ---------------------------------------------------------------- granting

    function test_grant_fills_the_token() public {
        vm.expectEmit(true, true, true, true, address(token));
        emit IAccessToken.TokenGranted(CLIENT, DEVICE, CLAIMS, uint64(block.timestamp + 60), 1, type(uint32).max);
        vm.prank(SERVER);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        Token memory t = token.tokenOf(CLIENT, DEVICE);
        eq(t.issuedAt, block.timestamp);
        eq(t.expiresAt, block.timestamp + 60);
        eq(bytes32(t.claims), bytes32(CLAIMS));
        eq(t.grantBlock, block.number);
        eq(t.serial, 1);
    }

    function test_the_papers_calls_speak_of_the_default_resource() public {
        vm.prank(SERVER);
        token.addToken(CLIENT, 60, CLAIMS);
        (address res, uint64 expiresAt, bytes4 claims) = token.getToken(CLIENT);
        eq(res, DEVICE);
        eq(expiresAt, block.timestamp + 60);
        eq(bytes32(claims), bytes32(CLAIMS));
        yes(token.isValid(CLIENT), "valid");
        (res, expiresAt, claims) = token.getToken(CLIENT, STRANGER);
        eq(res, STRANGER);
        eq(expiresAt, 0);
        vm.prank(CLIENT);
        token.deleteToken(CLIENT);
        yes(!token.isValid(CLIENT), "deleted");
        vm.prank(OWNER);
        token.setDefaultResource(STRANGER);
        (res,,) = token.getToken(CLIENT);
        eq(res, STRANGER);
    }

    function test_the_last_write_replaces_the_whole_token() public {
        vm.startPrank(SERVER);
        token.addToken(CLIENT, DEVICE, 1000, 0x000000ff);
        vm.roll(block.number + 5);
        vm.warp(block.timestamp + 10);
        token.addToken(CLIENT, DEVICE, 60, 0x00000001);
        Token memory t = token.tokenOf(CLIENT, DEVICE);
        eq(t.expiresAt, block.timestamp + 60);
        eq(bytes32(t.claims), bytes32(bytes4(0x00000001)));
        eq(t.serial, 2);
        eq(t.grantBlock, block.number);
    }

    function test_grants_in_bulk() public {
        address[] memory clients = new address[](3);
        for (uint160 i = 0; i < 3; ++i) {
            clients[i] = address(100 + i);
        }
        vm.startPrank(SERVER);
        token.addTokens(clients, DEVICE, 60, CLAIMS);
        Token[] memory tokens = token.tokensOf(clients, DEVICE);
        for (uint256 i = 0; i < 3; ++i) {
            eq(tokens[i].serial, 1);
            eq(tokens[i].expiresAt, block.timestamp + 60);
        }
        token.deleteTokens(clients, DEVICE);
        tokens = token.tokensOf(clients, DEVICE);
        for (uint256 i = 0; i < 3; ++i) {
            eq(tokens[i].serial, 2);
            eq(tokens[i].expiresAt, 0);
        }
    }

    function test_a_token_ends_at_its_second() public {
        vm.prank(SERVER);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        vm.warp(block.timestamp + 59);
        yes(token.isValid(CLIENT, DEVICE), "still");
        vm.warp(block.timestamp + 1);
        yes(!token.isValid(CLIENT, DEVICE), "over");
    }

    function test_senseless_grants_are_refused() public {
        vm.startPrank(SERVER);
        vm.expectRevert(AccessToken.ZeroAddress.selector);
        token.addToken(address(0), DEVICE, 60, CLAIMS);
        vm.expectRevert(AccessToken.ZeroAddress.selector);
        token.addToken(CLIENT, address(0), 60, CLAIMS);
        vm.expectRevert(AccessToken.NoClaims.selector);
        token.addToken(CLIENT, DEVICE, 60, 0);
        vm.expectRevert(AccessToken.NoTime.selector);
        token.addToken(CLIENT, DEVICE, 0, CLAIMS);
    }

    function test_a_life_that_overflows_is_refused() public {
        vm.startPrank(SERVER);
        vm.expectRevert();
        token.addToken(CLIENT, DEVICE, type(uint64).max, CLAIMS);
        token.addToken(CLIENT, DEVICE, type(uint64).max - uint64(block.timestamp), CLAIMS);
        eq(token.tokenOf(CLIENT, DEVICE).expiresAt, type(uint64).max);
    }

    // ---------------------------------------------------------------- revoking

    function test_a_deleted_slot_keeps_its_serial() public {
        vm.startPrank(SERVER);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        vm.roll(block.number + 1);
        vm.expectEmit(true, true, true, true, address(token));
        emit IAccessToken.TokenRevoked(CLIENT, DEVICE, SERVER, 2);
        token.deleteToken(CLIENT, DEVICE);
        Token memory t = token.tokenOf(CLIENT, DEVICE);
        eq(t.serial, 2);
        eq(t.expiresAt, 0);
        eq(bytes32(t.claims), bytes32(0));
        eq(t.grantBlock, block.number);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        eq(token.tokenOf(CLIENT, DEVICE).serial, 3);
    }

    function test_deleting_nothing_does_nothing() public {
        vm.recordLogs();
        vm.prank(SERVER);
        token.deleteToken(CLIENT, DEVICE);
        eq(vm.getRecordedLogs().length, 0);
        eq(token.tokenOf(CLIENT, DEVICE).serial, 0);
    }

    function test_a_revocation_works_in_the_last_serial() public {
        bytes32 slot = slotOf(CLIENT, DEVICE);
        uint256 word = uint256(type(uint32).max) << 224 | uint256(block.timestamp + 60) << 64;
        vm.store(address(token), slot, bytes32(word));
        yes(token.isValid(CLIENT, DEVICE), "stored");
        vm.startPrank(SERVER);
        vm.expectRevert(AccessToken.SerialsExhausted.selector);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        token.deleteToken(CLIENT, DEVICE);
        yes(!token.isValid(CLIENT, DEVICE), "revoked");
        eq(token.tokenOf(CLIENT, DEVICE).serial, type(uint32).max);
    }

    function test_a_bar_revokes_and_refuses_until_it_ends() public {
        vm.startPrank(SERVER);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        uint64 until = uint64(block.timestamp + 100);
        vm.expectEmit(true, true, true, true, address(token));
        emit IAccessToken.ClientBarred(CLIENT, DEVICE, SERVER, until);
        token.barClient(CLIENT, DEVICE, until);
        yes(!token.isValid(CLIENT, DEVICE), "revoked");
        eq(token.barredUntil(CLIENT, DEVICE), until);
        vm.expectRevert(abi.encodeWithSelector(AccessToken.Barred.selector, until));
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(AccessToken.Barred.selector, until));
        vm.prank(CLIENT);
        token.requestToken(0, 60, "");
        vm.warp(until);
        vm.prank(CLIENT);
        token.requestToken(0, 60, "");
        yes(token.isValid(CLIENT, DEVICE), "granted again");
        vm.prank(SERVER);
        token.barClient(CLIENT, DEVICE, 0);
        yes(token.isValid(CLIENT, DEVICE), "lifting a bar takes nothing away");
    }

    // ---------------------------------------------------------------- roles

    function refuseRole(address who, bytes32 role, bytes memory call) internal {
        vm.prank(who);
        (bool ok, bytes memory why) = address(token).call(call);
        yes(!ok, "refused");
        eq(
            keccak256(why),
            keccak256(abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, who, role))
        );
    }

    function test_strangers_change_nothing() public {
        bytes32 server = token.AUTHORIZATION_SERVER();
        refuseRole(STRANGER, server, abi.encodeWithSignature("addToken(address,address,uint64,bytes4)", CLIENT, DEVICE, 60, CLAIMS));
        refuseRole(STRANGER, server, abi.encodeWithSignature("addToken(address,uint64,bytes4)", CLIENT, 60, CLAIMS));
        refuseRole(STRANGER, server, abi.encodeCall(token.addTokens, (one(CLIENT), DEVICE, 60, CLAIMS)));
        refuseRole(STRANGER, server, abi.encodeCall(token.deleteTokens, (one(CLIENT), DEVICE)));
        refuseRole(STRANGER, server, abi.encodeCall(token.barClient, (CLIENT, DEVICE, 1)));
        refuseRole(STRANGER, 0, abi.encodeCall(token.setOffer, (1, address(open), DEVICE, CLAIMS, 1, true)));
        refuseRole(STRANGER, 0, abi.encodeCall(token.setDefaultResource, (STRANGER)));
        refuseRole(STRANGER, 0, abi.encodeCall(token.grantRole, (server, STRANGER)));
        // an authorization server is no owner
        refuseRole(SERVER, 0, abi.encodeCall(token.setOffer, (1, address(open), DEVICE, CLAIMS, 1, true)));
        refuseRole(SERVER, 0, abi.encodeCall(token.grantRole, (server, STRANGER)));
    }

    function test_a_client_deletes_its_own_token_only() public {
        vm.prank(SERVER);
        token.addToken(CLIENT, DEVICE, 60, CLAIMS);
        vm.expectRevert(abi.encodeWithSelector(AccessToken.NotYours.selector, CLIENT));
        vm.prank(STRANGER);
        token.deleteToken(CLIENT, DEVICE);
        vm.prank(CLIENT);
        token.deleteToken(CLIENT, DEVICE);
        yes(!token.isValid(CLIENT, DEVICE), "own token");
    }

    function test_construction() public {
        vm.expectRevert(AccessToken.ZeroAddress.selector);
        new AccessToken(address(0), DEVICE);
        yes(token.hasRole(token.DEFAULT_ADMIN_ROLE(), OWNER), "owner");
        yes(token.hasRole(token.AUTHORIZATION_SERVER(), OWNER), "owner grants");
        yes(!token.hasRole(token.DEFAULT_ADMIN_ROLE(), address(this)), "not the deployer");
        yes(token.supportsInterface(type(IAccessToken).interfaceId), "IAccessToken");
        yes(token.supportsInterface(type(IERC165).interfaceId), "IERC165");
        yes(token.supportsInterface(type(IAccessControl).interfaceId), "IAccessControl");
        yes(!token.supportsInterface(0xffffffff), "nothing else");
    }

    function test_each_deployment_has_the_same_code() public {
        vm.chainId(1);
        AccessToken other = new AccessToken(STRANGER, address(0));
        eq(address(other).codehash, address(token).codehash);
    }

    // ---------------------------------------------------------------- offers

    function test_offers_are_numbered_and_changed_in_place() public {
        vm.startPrank(OWNER);
        vm.expectEmit(true, true, true, true, address(token));
        emit AccessToken.OfferSet(1, address(open), DEVICE, 0x00000001, 10, true);
        token.setOffer(1, address(open), DEVICE, 0x00000001, 10, true);
        token.setOffer(1, address(open), DEVICE, 0x00000002, 20, false);
        eq(token.offerCount(), 2);
        Offer memory o = token.offerOf(1);
        eq(o.policy, address(open));
        eq(o.resource, DEVICE);
        eq(o.maxTtl, 20);
        eq(bytes32(o.claims), bytes32(bytes4(0x00000002)));
        yes(!o.active, "closed");
        vm.expectRevert(abi.encodeWithSelector(AccessToken.NoSuchOffer.selector, 3));
        token.setOffer(3, address(open), DEVICE, CLAIMS, 10, true);
        vm.expectRevert(AccessToken.ZeroAddress.selector);
        token.setOffer(2, address(0), DEVICE, CLAIMS, 10, true);
        vm.expectRevert(AccessToken.ZeroAddress.selector);
        token.setOffer(2, address(open), address(0), CLAIMS, 10, true);
        vm.expectRevert(AccessToken.NoClaims.selector);
        token.setOffer(2, address(open), DEVICE, 0, 10, true);
        vm.expectRevert(AccessToken.NoTime.selector);
        token.setOffer(2, address(open), DEVICE, CLAIMS, 0, true);
    }

    function test_the_number_that_means_no_offer_is_never_one() public {
        // pretend that all other numbers are taken: the length of _offers stands in slot 4
        vm.store(address(token), bytes32(uint256(4)), bytes32(uint256(type(uint32).max)));
        eq(token.offerCount(), type(uint32).max);
        vm.expectRevert(abi.encodeWithSelector(AccessToken.NoSuchOffer.selector, type(uint32).max));
        vm.prank(OWNER);
        token.setOffer(type(uint32).max, address(open), DEVICE, CLAIMS, 10, true);
    }

    function test_a_request_gives_the_offers_claims() public {
        vm.expectEmit(true, true, true, true, address(token));
        emit IAccessToken.TokenGranted(CLIENT, DEVICE, CLAIMS, uint64(block.timestamp + 60), 1, 0);
        vm.prank(CLIENT);
        token.requestToken(0, 60, "");
        yes(token.isValid(CLIENT, DEVICE), "granted");
    }

    function test_requests_beyond_the_offer_are_refused() public {
        vm.startPrank(CLIENT);
        token.requestToken(0, 1 hours, "");
        vm.expectRevert(abi.encodeWithSelector(AccessToken.TtlTooLong.selector, 1 hours));
        token.requestToken(0, 1 hours + 1, "");
        vm.expectRevert(AccessToken.NoTime.selector);
        token.requestToken(0, 0, "");
        vm.expectRevert(abi.encodeWithSelector(AccessToken.NoSuchOffer.selector, 1));
        token.requestToken(1, 60, "");
        vm.stopPrank();
        vm.prank(OWNER);
        token.setOffer(0, address(open), DEVICE, CLAIMS, 1 hours, false);
        vm.expectRevert(abi.encodeWithSelector(AccessToken.OfferClosed.selector, 0));
        vm.prank(CLIENT);
        token.requestToken(0, 60, "");
    }

    // ---------------------------------------------------------------- storage

    function slotOf(address client, address device) internal pure returns (bytes32) {
        return keccak256(abi.encode(device, keccak256(abi.encode(client, uint256(1)))));
    }

    /// One token, one slot, and the layout that storage proofs rely on.
    function test_fuzz_the_slot_layout(address client, address device, uint32 ttl, bytes4 claims) public {
        vm.assume(client != address(0) && device != address(0) && ttl != 0 && claims != 0);
        vm.prank(SERVER);
        token.addToken(client, device, ttl, claims);
        uint256 word = uint256(vm.load(address(token), slotOf(client, device)));
        eq(uint64(word), block.timestamp);
        eq(uint64(word >> 64), block.timestamp + ttl);
        eq(uint32(word >> 128), uint32(claims));
        eq(uint64(word >> 160), block.number);
        eq(uint32(word >> 224), 1);
    }
}
