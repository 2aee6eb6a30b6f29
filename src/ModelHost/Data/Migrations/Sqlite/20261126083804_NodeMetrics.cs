using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace ModelHost.Data.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class NodeMetrics : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "ContainerRuntime",
                table: "Nodes",
                type: "TEXT",
                maxLength: 32,
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "Cordoned",
                table: "Nodes",
                type: "TEXT",
                maxLength: 8192,
                nullable: false,
                defaultValue: "");

            migrationBuilder.AddColumn<bool>(
                name: "IsByHand",
                table: "Nodes",
                type: "INTEGER",
                nullable: false,
                defaultValue: false);

            migrationBuilder.AddColumn<int>(
                name: "RamCacheLimitMb",
                table: "Nodes",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<bool>(
                name: "WarmOffloadEnabled",
                table: "Nodes",
                type: "INTEGER",
                nullable: false,
                defaultValue: true);

            migrationBuilder.AddColumn<long>(
                name: "DrainUntil",
                table: "Deployments",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.CreateTable(
                name: "NodeSamples",
                columns: table => new
                {
                    Key = table.Column<long>(type: "INTEGER", nullable: false),
                    Figures = table.Column<byte[]>(type: "BLOB", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_NodeSamples", x => x.Key);
                });

            migrationBuilder.CreateTable(
                name: "NodeSummaries",
                columns: table => new
                {
                    Key = table.Column<long>(type: "INTEGER", nullable: false),
                    Figures = table.Column<byte[]>(type: "BLOB", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_NodeSummaries", x => x.Key);
                });
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "NodeSamples");

            migrationBuilder.DropTable(
                name: "NodeSummaries");

            migrationBuilder.DropColumn(
                name: "ContainerRuntime",
                table: "Nodes");

            migrationBuilder.DropColumn(
                name: "Cordoned",
                table: "Nodes");

            migrationBuilder.DropColumn(
                name: "IsByHand",
                table: "Nodes");

            migrationBuilder.DropColumn(
                name: "RamCacheLimitMb",
                table: "Nodes");

            migrationBuilder.DropColumn(
                name: "WarmOffloadEnabled",
                table: "Nodes");

            migrationBuilder.DropColumn(
                name: "DrainUntil",
                table: "Deployments");
        }
    }
}
