// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Device, DeviceRegistry} from "../DeviceRegistry.sol";
import {SmartAccount} from "./Mocks.sol";
import {Suite} from "./Suite.sol";

contract DeviceRegistryTest is Suite {
    DeviceRegistry internal registry;
    uint256 internal constant KEY = 0xd1ce;
    address internal device;
    address internal constant OWNER = address(0x0a);
    address internal constant THIEF = address(0x0b);
    bytes32 internal constant SIGNING = bytes32(uint256(0xb1));
    bytes32 internal constant SERVER = bytes32(uint256(0xa1));
    uint256 internal deadline;

    function setUp() public {
        registry = new DeviceRegistry();
        device = vm.addr(KEY);
        deadline = block.timestamp + 100;
    }

    function digest(address owner, bytes32 signing, bytes32 server, uint256 nonce) internal view returns (bytes32) {
        bytes32 kind = keccak256(
            "Registration(address device,address owner,bytes32 signingKey,bytes32 keyServer,uint256 nonce,uint256 deadline)"
        );
        return digestOf(
            address(registry), keccak256(abi.encode(kind, device, owner, signing, server, nonce, deadline))
        );
    }

    function sig(address owner, bytes32 signing, bytes32 server, uint256 nonce) internal view returns (bytes memory) {
        return signed(KEY, digest(owner, signing, server, nonce));
    }

    function list(uint256 n) internal pure returns (address[] memory contracts) {
        contracts = new address[](n);
        for (uint160 i = 0; i < n; ++i) {
            contracts[i] = address(1000 + i);
        }
    }

    function register(address by, uint256 nonce) internal {
        bytes memory s = sig(by, SIGNING, SERVER, nonce);
        vm.prank(by);
        registry.register(device, SIGNING, SERVER, list(2), "coap://d", deadline, s);
    }

    // ---------------------------------------------------------------- registering

    function test_a_device_agrees_to_its_owner() public {
        bytes memory s = sig(OWNER, SIGNING, SERVER, 0);
        vm.expectEmit(true, true, true, true, address(registry));
        emit DeviceRegistry.DeviceRegistered(device, OWNER, SIGNING, SERVER);
        vm.prank(OWNER);
        registry.register(device, SIGNING, SERVER, list(2), "coap://d", deadline, s);
        Device memory d = registry.deviceOf(device);
        eq(d.owner, OWNER);
        yes(d.active, "active");
        eq(d.signingKey, SIGNING);
        eq(d.keyServer, SERVER);
        eq(d.changedBlock, block.number);
        eq(d.nonce, 1);
        eq(d.contracts.length, 2);
        eq(d.contracts[1], address(1001));
        eq(keccak256(bytes(d.uri)), keccak256("coap://d"));
    }

    function test_unknown_devices_are_all_zero_and_many_are_read_at_once() public {
        register(OWNER, 0);
        address[] memory ask = new address[](2);
        ask[0] = THIEF;
        ask[1] = device;
        Device[] memory found = registry.devicesOf(ask);
        eq(found[0].changedBlock, 0);
        eq(found[1].owner, OWNER);
    }

    /// The transaction is seen in the pool and sent first by somebody else: the signature names the real owner.
    function test_a_front_runner_gains_nothing() public {
        bytes memory s = sig(OWNER, SIGNING, SERVER, 0);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        vm.prank(THIEF);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, s);
        vm.prank(OWNER);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, s);
    }

    function test_every_field_is_covered_by_the_signature() public {
        bytes memory s = sig(OWNER, SIGNING, SERVER, 0);
        vm.startPrank(OWNER);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.register(device, bytes32(uint256(1)), SERVER, list(0), "", deadline, s);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.register(device, SIGNING, bytes32(uint256(1)), list(0), "", deadline, s);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline + 1, s);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.register(address(0xdead), SIGNING, SERVER, list(0), "", deadline, s);
        vm.expectRevert(DeviceRegistry.ZeroAddress.selector);
        registry.register(address(0), SIGNING, SERVER, list(0), "", deadline, new bytes(65));
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, malleated(KEY, digest(OWNER, SIGNING, SERVER, 0)));
        DeviceRegistry other = new DeviceRegistry();
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        other.register(device, SIGNING, SERVER, list(0), "", deadline, s);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.Expired.selector, deadline));
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, s);
    }

    function test_a_contract_cannot_pose_as_a_device() public {
        SmartAccount account = new SmartAccount(device);
        bytes32 kind = registry.REGISTRATION_TYPE();
        bytes32 d = digestOf(
            address(registry), keccak256(abi.encode(kind, address(account), OWNER, SIGNING, SERVER, 0, deadline))
        );
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        vm.prank(OWNER);
        registry.register(address(account), SIGNING, SERVER, list(0), "", deadline, signed(KEY, d));
    }

    function test_an_active_device_is_not_registered_over() public {
        register(OWNER, 0);
        bytes memory s = sig(THIEF, SIGNING, SERVER, 1);
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.AlreadyRegistered.selector, device, OWNER));
        vm.prank(THIEF);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, s);
    }

    function test_limits() public {
        bytes memory s = sig(OWNER, SIGNING, SERVER, 0);
        vm.startPrank(OWNER);
        vm.expectRevert(DeviceRegistry.TooManyContracts.selector);
        registry.register(device, SIGNING, SERVER, list(9), "", deadline, s);
        vm.expectRevert(DeviceRegistry.UriTooLong.selector);
        registry.register(device, SIGNING, SERVER, list(0), string(new bytes(257)), deadline, s);
        address[] memory zero = new address[](1);
        vm.expectRevert(DeviceRegistry.ZeroAddress.selector);
        registry.register(device, SIGNING, SERVER, zero, "", deadline, s);
        bytes memory noKey = sig(OWNER, 0, SERVER, 0);
        vm.expectRevert(DeviceRegistry.ZeroKey.selector);
        registry.register(device, 0, SERVER, list(0), "", deadline, noKey);
        bytes memory noServer = sig(OWNER, SIGNING, 0, 0);
        vm.expectRevert(DeviceRegistry.ZeroKey.selector);
        registry.register(device, SIGNING, 0, list(0), "", deadline, noServer);
        registry.register(device, SIGNING, SERVER, list(8), string(new bytes(256)), deadline, s);
    }

    function test_a_signature_holds_until_its_very_second() public {
        bytes memory s = sig(OWNER, SIGNING, SERVER, 0);
        vm.warp(deadline);
        vm.prank(OWNER);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, s);
    }

    // ---------------------------------------------------------------- changing

    function test_contracts_and_uri_change_without_the_device() public {
        register(OWNER, 0);
        vm.roll(block.number + 3);
        vm.expectEmit(true, true, true, true, address(registry));
        emit DeviceRegistry.DeviceUpdated(device, OWNER, SIGNING, SERVER);
        vm.prank(OWNER);
        registry.update(device, SIGNING, SERVER, list(1), "coap://e", 0, "");
        Device memory d = registry.deviceOf(device);
        eq(d.contracts.length, 1);
        eq(d.changedBlock, block.number);
        eq(d.nonce, 1);
    }

    function test_keys_change_only_with_the_device() public {
        register(OWNER, 0);
        bytes32 other = bytes32(uint256(0xb2));
        vm.startPrank(OWNER);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.update(device, other, SERVER, list(1), "", deadline, "");
        bytes memory stale = sig(OWNER, other, SERVER, 0);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.update(device, other, SERVER, list(1), "", deadline, stale);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        registry.update(device, SIGNING, other, list(1), "", deadline, stale);
        registry.update(device, other, SERVER, list(1), "", deadline, sig(OWNER, other, SERVER, 1));
        registry.update(device, other, other, list(1), "", deadline, sig(OWNER, other, other, 2));
        Device memory d = registry.deviceOf(device);
        eq(d.signingKey, other);
        eq(d.keyServer, other);
        eq(d.nonce, 3);
    }

    function test_strangers_change_nothing() public {
        register(OWNER, 0);
        bytes memory no = abi.encodeWithSelector(DeviceRegistry.NotOwner.selector, device, OWNER);
        vm.startPrank(THIEF);
        vm.expectRevert(no);
        registry.update(device, SIGNING, SERVER, list(1), "", 0, "");
        vm.expectRevert(no);
        registry.transfer(device, THIEF);
        vm.expectRevert(no);
        registry.deactivate(device);
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.NotOffered.selector, device));
        registry.accept(device);
        // the zero address owns what is not registered; nobody is the zero address
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.NotOwner.selector, THIEF, address(0)));
        registry.deactivate(THIEF);
    }

    function test_a_transfer_has_to_be_accepted() public {
        register(OWNER, 0);
        vm.prank(OWNER);
        registry.transfer(device, THIEF);
        eq(registry.offeredTo(device), THIEF);
        eq(registry.deviceOf(device).owner, OWNER);
        vm.roll(block.number + 1);
        vm.expectEmit(true, true, true, true, address(registry));
        emit DeviceRegistry.DeviceTransferred(device, THIEF, OWNER);
        vm.prank(THIEF);
        registry.accept(device);
        Device memory d = registry.deviceOf(device);
        eq(d.owner, THIEF);
        eq(d.contracts.length, 0);
        eq(d.changedBlock, block.number);
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.NotOffered.selector, device));
        vm.prank(THIEF);
        registry.accept(device);
    }

    function test_an_offer_of_a_device_can_be_withdrawn() public {
        register(OWNER, 0);
        vm.startPrank(OWNER);
        registry.transfer(device, THIEF);
        registry.transfer(device, address(0));
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.NotOffered.selector, device));
        vm.prank(THIEF);
        registry.accept(device);
    }

    function test_a_deactivated_device_starts_anew() public {
        register(OWNER, 0);
        vm.startPrank(OWNER);
        registry.transfer(device, THIEF);
        vm.expectEmit(true, true, true, true, address(registry));
        emit DeviceRegistry.DeviceDeactivated(device, OWNER);
        registry.deactivate(device);
        yes(!registry.deviceOf(device).active, "out");
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.NotActive.selector, device));
        registry.update(device, SIGNING, SERVER, list(1), "", 0, "");
        vm.stopPrank();
        // what was offered before is void
        vm.expectRevert(abi.encodeWithSelector(DeviceRegistry.NotOffered.selector, device));
        vm.prank(THIEF);
        registry.accept(device);
        // the old signature is spent; a fresh one may name anybody
        bytes memory spent = sig(OWNER, SIGNING, SERVER, 0);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        vm.prank(OWNER);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, spent);
        register(THIEF, 1);
        eq(registry.deviceOf(device).owner, THIEF);
        eq(registry.deviceOf(device).nonce, 2);
    }

    function test_fuzz_only_the_device_registers_itself(uint256 key, address by) public {
        key = 1 + (key % (2 ** 200));
        vm.assume(vm.addr(key) != device && by != address(0));
        bytes32 d = digest(by, SIGNING, SERVER, 0);
        vm.expectRevert(DeviceRegistry.BadDeviceSignature.selector);
        vm.prank(by);
        registry.register(device, SIGNING, SERVER, list(0), "", deadline, signed(key, d));
    }

    function test_each_deployment_has_the_same_code() public {
        vm.chainId(1);
        eq(address(new DeviceRegistry()).codehash, address(registry).codehash);
    }
}
