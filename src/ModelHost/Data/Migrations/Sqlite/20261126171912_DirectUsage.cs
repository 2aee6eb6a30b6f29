using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace ModelHost.Data.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class DirectUsage : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<int>(
                name: "DeploymentId",
                table: "Tombstones",
                type: "INTEGER",
                nullable: false,
                defaultValue: 0);

            migrationBuilder.AddColumn<string>(
                name: "Model",
                table: "Tombstones",
                type: "TEXT",
                maxLength: 255,
                nullable: false,
                defaultValue: "");

            migrationBuilder.AddColumn<string>(
                name: "Owner",
                table: "Tombstones",
                type: "TEXT",
                maxLength: 255,
                nullable: false,
                defaultValue: "");

            migrationBuilder.CreateTable(
                name: "FormerKeys",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false),
                    Label = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Hash = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    EndedAt = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_FormerKeys", x => x.Id);
                });

            migrationBuilder.CreateTable(
                name: "UsageMarks",
                columns: table => new
                {
                    NodeUid = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Journal = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Sequence = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_UsageMarks", x => x.NodeUid);
                });
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "FormerKeys");

            migrationBuilder.DropTable(
                name: "UsageMarks");

            migrationBuilder.DropColumn(
                name: "DeploymentId",
                table: "Tombstones");

            migrationBuilder.DropColumn(
                name: "Model",
                table: "Tombstones");

            migrationBuilder.DropColumn(
                name: "Owner",
                table: "Tombstones");
        }
    }
}
